"""Networks of moving pictures through real Ray, and the ImageNet weights that encoders of pictures start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convonet.layers.resnet18 import ResNet18
from convonet.oflow import SolverConfig
from convonet.training import Fit, TrainingConfig, TrainingState
from convonet.weights import load_any_network
from pipeline.cli import main
from pipeline.cluster import ray_session
from pipeline.errors import RunDirectoryError
from pipeline.training import TrainConfig, train
from pipeline.training_presets import preset_config
from preprocessing.batches.training_sequences import SequenceConfig
from preprocessing.dataset import BLOCK
from tests.preprocessing.ball_datasets import FRAMES, MOVING, write_balls

SIZES = {"frames": FRAMES, "code_size": 8, "temporal_hidden": 2, "decoder_hidden": 8}
FLOW_SIZES = {
    "velocity_hidden": 8,
    "velocity_blocks": 1,
    "solver": SolverConfig("midpoint", step_size=0.5, adjoint=False),
}
TERMS = {
    "oflow_img": {"reconstruction_first", "reconstruction_later"},
    "oflow_img_w_correspond": {"reconstruction_first", "reconstruction_later", "correspondence"},
    "onet4d_img": set[str](),
}


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("moving") / "balls.zarr", MOVING)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the entries of torchvision's resnet18 and random values."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in ResNet18().state_dict().items()
    }
    path = tmp_path_factory.mktemp("imagenet") / "resnet18.pth"
    torch.save(state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    return path


def small_run(preset: str, data: Path, learning_rate: float = 1e-3) -> TrainConfig:
    """The run of a preset, reduced in width and in pixels; ResNet-18 stays as it is."""
    training = TrainingConfig(steps=2, batch_size=2, learning_rate=learning_rate, warmup_steps=1)
    config = preset_config(preset, data, training)
    assert isinstance(config.samples, SequenceConfig)
    sizes = SIZES if preset.startswith("onet4d") else SIZES | FLOW_SIZES
    return replace(
        config,
        network=replace(config.network, **sizes),
        samples=replace(config.samples, frames=FRAMES, picture_side=32, queries=64),
        checkpoint_every=2,
        validation_batches=2,
    )


@pytest.mark.parametrize(("preset", "terms"), TERMS.items())
def test_networks_of_moving_pictures_train_by_their_own_losses(
    preset: str, terms: set[str], moving: Path
) -> None:
    config = small_run(preset, moving)
    torch.manual_seed(0)
    network = config.network.build()
    before = {name: value.clone() for name, value in network.named_parameters()}
    logged: list[dict[str, float]] = []
    fit = Fit(
        config.source(moving, "train", 0),
        config.training,
        torch.device("cpu"),
        on_step=lambda state, figures: logged.append(figures),
        objective=config.objective,
    )
    fit.run(TrainingState.fresh(network, config.training))
    assert len(logged) == 2
    assert {name for name in logged[-1] if name.startswith(("recon", "corr"))} == terms
    still = [name for name, value in network.named_parameters() if torch.equal(value, before[name])]
    assert not still  # both encoders learn
    batch = config.objective.load(config.source(moving, "val", 1).batch(0, 2), torch.device("cpu"))
    with torch.no_grad():
        assert 0 <= config.objective.validate(network.eval(), [batch])["validation_iou"] <= 1


def test_imagenet_weights_arrive_in_the_worker_and_belong_to_the_run(
    moving: Path, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(imagenet.parent)
    # At a rate of 0 the saved weights are those that training started from.
    still = replace(small_run("oflow_img_w_correspond", moving, learning_rate=0.0), imagenet=imagenet.name)
    with ray_session("local", cpus=1):
        summary = train(moving, tmp_path / "run", still, device="cpu")
        with pytest.raises(RunDirectoryError, match="another configuration"):
            train(moving, tmp_path / "run", replace(still, imagenet=None), device="cpu")
    assert summary.steps == 2 and summary.validation_iou is not None
    assert load_any_network(str(summary.model)).config == still.network
    saved, given = load_file(summary.model), torch.load(imagenet, weights_only=True)
    weights = [name for name in given if name.endswith("weight") and not name.startswith("fc")]
    assert len(weights) == 40
    for name in weights:
        assert torch.equal(saved[f"spatial_encoder.features.{name}"], given[name])


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments])
    message = capsys.readouterr().err
    assert stopped.value.code == 1 and message.startswith("tessera: ") and message.count("\n") == 1
    return message


@pytest.mark.parametrize("preset", TERMS)
def test_sequences_without_pictures_are_refused_with_the_cure(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = replace(
        MOVING, frames=17, points=BLOCK, uniform_queries=BLOCK, near_queries=0, views=0, view_size=0
    )
    bare = write_balls(tmp_path / "bare.zarr", layout)
    message = refused([str(bare), "--out", str(tmp_path / "run"), "--preset", preset], capsys)
    assert "bare.zarr: holds no rendered views" in message and "--views" in message
    assert not (tmp_path / "run").exists()


def test_imagenet_weights_that_cannot_be_used_are_refused_before_ray_starts(
    moving: Path, imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--out", str(tmp_path / "run"), "--preset"]
    for preset in ("onet4d_img", "oflow_pointcloud", "volume"):
        message = refused([str(moving), *run, preset, "--imagenet", str(imagenet)], capsys)
        assert "resnet18.pth" in message and "no such encoder" in message
    (tmp_path / "notes.pth").write_text("not weights")
    message = refused([str(moving), *run, "oflow_img", "--imagenet", str(tmp_path / "notes.pth")], capsys)
    assert "notes.pth: not readable as weights" in message
    both = ["--imagenet", str(imagenet), "--initial-model", "volume-default"]
    assert "--initial-model or --imagenet" in refused([str(moving), *run, "onet_img", *both], capsys)
    assert not (tmp_path / "run").exists()
