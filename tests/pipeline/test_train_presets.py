"""`tessera train --preset` through real Ray: a killed run continues, and what cannot be trained is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.train import WorkerGroupError

from convonet.conv_onet import ConvOnetConfig
from convonet.oflow import OccupancyFlowConfig
from convonet.registry import family_of, presets
from convonet.training import TrainingConfig
from convonet.volume import VolumeNetworkConfig
from convonet.weights import load_any_network, read_header, save_network
from pipeline.cli import main
from pipeline.cluster import ray_session
from pipeline.errors import ClusterError, RunDirectoryError
from pipeline.training import TrainConfig, train
from pipeline.training_presets import preset_config, preset_training
from preprocessing.batches.training_sequences import SequenceConfig
from preprocessing.batches.training_shapes import ShapeConfig
from preprocessing.errors import DatasetError
from tests.preprocessing.ball_datasets import BALLS, MOVING, write_balls

PRESETS = presets()
ROOT = Path(__file__).resolve().parents[2]
TINY = ConvOnetConfig(
    projections=("xz", "xy", "yz"),
    plane_resolution=16,
    feature_size=8,
    encoder_hidden=8,
    encoder_blocks=2,
    unet2d_levels=2,
    unet2d_channels=8,
    decoder_hidden=8,
    decoder_blocks=2,
)


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("still") / "balls.zarr", BALLS)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("moving") / "balls.zarr", MOVING)


def test_two_workers_train_a_small_network_given_as_a_configuration(balls: Path, tmp_path: Path) -> None:
    training = TrainingConfig(steps=40, batch_size=4, learning_rate=1e-2, warmup_steps=2, averaging=0.9)
    config = TrainConfig(
        TINY, training, workers=2, checkpoint_every=20, samples=ShapeConfig(points=500, queries=512)
    )
    with ray_session("local", cpus=2):
        summary = train(balls, tmp_path / "run", config, device="cpu")
        assert summary.steps == 40 and summary.validation_iou is not None and summary.validation_iou > 0.5
        # Cut short as by a kill, Ray Train's list of checkpoints stops nobody.
        (tmp_path / "run" / "ray" / "checkpoint_manager_snapshot.json").write_text('{"ray_ver')
        again = train(balls, tmp_path / "run", config, device="cpu")  # finished: nothing is left to do
        assert (again.steps, again.validation_iou) == (40, summary.validation_iou)
        with pytest.raises(RunDirectoryError, match="another configuration"):
            train(balls, tmp_path / "run", replace(config, checkpoint_every=10), device="cpu")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "checkpoint.partial").touch()  # no folder can be made there
        with pytest.raises(
            RunDirectoryError, match=r"no checkpoint can be written .*; free some space"
        ) as full:
            train(balls, tmp_path / "full", replace(config, workers=1, max_failures=0), device="cpu")
        assert "\n" not in str(full.value) and "run the same command again" in str(full.value)
    network = load_any_network(str(summary.model))
    assert network.config == TINY and read_header(str(summary.model))["steps"] == "40"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_command_continues_a_killed_run_of_a_preset(balls: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pipeline.cli", "train", str(balls), "--out", str(run)]
    command += [
        "--preset",
        "shapenet_1plane",
        "--steps",
        "15",
        "--batch-size",
        "1",
        "--checkpoint-every",
        "3",
    ]
    command += ["--device", "cpu", "--address", "local"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    registered = run / "ray" / "checkpoint_manager_snapshot.json"  # what Ray Train restores from
    deadline = time.monotonic() + 180
    while not (registered.exists() and '"checkpoint_dir_name"' in registered.read_text()):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers see that it is gone
    log = run / "metrics.jsonl"
    before = log.read_text().splitlines()
    assert json.loads(before[-1])["step"] < 15
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "15 steps, validation IoU" in result.stdout
    after = [json.loads(line)["step"] for line in log.read_text().splitlines()[len(before) :]]
    assert after[-1] == 15 and after[0] > 3
    network = load_any_network(str(run / "model.safetensors"))
    assert network.config == PRESETS["shapenet_1plane"]


def run_for(network: object, **values: object) -> TrainConfig:
    return TrainConfig(network, TrainingConfig(), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_samples_that_fit_its_network(name: str, balls: Path, moving: Path) -> None:
    kind_has_frames = hasattr(PRESETS[name], "frames")
    data = moving if kind_has_frames else balls
    training = preset_training(name)
    config = preset_config(name, data, training)
    if family_of(PRESETS[name]).makes == "scenes":
        assert config == TrainConfig(PRESETS[name]) and training == TrainingConfig()
        assert TrainConfig().network == PRESETS["volume"]
        return
    assert training.learning_rate == 1e-4
    if kind_has_frames:
        assert isinstance(config.samples, SequenceConfig)
        with pytest.raises(DatasetError, match=f"--frames {PRESETS[name].frames}"):  # type: ignore[union-attr]
            config.source(data, "train", 0)
        source = replace(config, samples=replace(config.samples, frames=MOVING.frames))
        batch = source.source(data, config.validation_split, 0).batch(0, 1)
    else:
        batch = config.source(data, config.validation_split, 0).batch(0, 1)
    assert len(batch.inputs) == 1
    if "_img" in name:
        times = (MOVING.frames,) if kind_has_frames else ()
        assert batch.inputs.shape[1:] == (*times, 3, 224, 224)
    if name == "onet_repr_power":
        assert config.network.shape_count == 3  # type: ignore[union-attr]


def test_gradients_of_a_flow_go_through_the_solver_if_asked(moving: Path) -> None:
    training = preset_training("oflow_pointcloud")
    usual, direct = (preset_config("oflow_pointcloud", moving, training, asked) for asked in (False, True))
    assert isinstance(usual.network, OccupancyFlowConfig) and usual.network.solver.adjoint
    solver = replace(usual.network.solver, adjoint=False)
    assert direct == replace(usual, network=replace(usual.network, solver=solver))
    with pytest.raises(ValueError, match="onet4d_pointcloud integrates nothing"):
        preset_config("onet4d_pointcloud", moving, training, direct_gradients=True)


def test_samples_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="conv_onet network is not trained on NoneType"):
        run_for(TINY)
    with pytest.raises(ValueError, match="volume network is not trained on ShapeConfig"):
        run_for(VolumeNetworkConfig(), samples=ShapeConfig())
    with pytest.raises(ValueError, match="conv_onet network is not trained on SequenceConfig"):
        run_for(TINY, samples=SequenceConfig())


@pytest.mark.parametrize(
    ("preset", "cure"),
    [
        ("onet_img", "--views"),
        ("onet_voxel", "--voxels"),
        ("oflow_pointcloud", "--frames 17"),
        ("no_such", "shapenet_3plane"),
    ],
)
def test_the_command_refuses_in_one_line_before_ray_starts(
    preset: str, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_balls(tmp_path / "bare.zarr", replace(BALLS, voxel_side=0, views=0, view_size=0))
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(bare), "--out", str(tmp_path / "run"), "--preset", preset])
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert cure in message and message.startswith("tessera: ") and message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_initial_model_of_another_kind_is_refused(
    balls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(balls), "--out", str(tmp_path / "run"), "--preset", "shapenet_3plane"]
    with pytest.raises(SystemExit):
        main([*command, "--initial-model", "volume-default"])
    assert "kind volume, but this run trains one of kind conv_onet" in capsys.readouterr().err


class FailingTrainer:
    """In Ray's place: keeps what the workers would be given, and fails as they may."""

    given: TrainConfig

    def __init__(self, worker: object, train_loop_config: dict[str, Any], **settings: object) -> None:
        FailingTrainer.given = train_loop_config["config"]

    def fit(self) -> None:
        raise WorkerGroupError("[Rank 0]:\nTraceback ...\nIntegrationError: velocities are not finite\n", {})


def test_workers_in_other_directories_find_the_weights_and_their_failure_is_one_line(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TINY.build()
    save_network(tmp_path / "start.safetensors", network, network.state_dict(), {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.training.DataParallelTrainer", FailingTrainer)
    monkeypatch.setattr("pipeline.training.ray_session", lambda address: nullcontext())
    monkeypatch.setattr("pipeline.training.cpus_for_each", lambda workers, use_gpu: 1)
    for name, expected in (
        ("start.safetensors", str(tmp_path / "start.safetensors")),
        ("volume-default", "volume-default"),
    ):
        config = run_for(TINY, samples=ShapeConfig(), initial_model=name)
        if name == "volume-default":
            config = replace(config, network=VolumeNetworkConfig(), samples=None)
        with pytest.raises(ClusterError) as caught:
            train(balls, tmp_path / name.split(".")[0], config, device="cpu")
        assert str(caught.value).startswith("training failed (IntegrationError: velocities are not finite); ")
        assert FailingTrainer.given.initial_model == expected
