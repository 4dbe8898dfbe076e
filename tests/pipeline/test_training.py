"""Datasets and training through real Ray: restart, equal bytes, a killed worker."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from convonet.training import TrainingConfig
from convonet.volume import VolumeNetworkConfig
from convonet.weights import load_network
from pipeline import preprocess, train
from pipeline.cluster import ray_session
from pipeline.errors import RunDirectoryError
from pipeline.training import TrainConfig
from preprocessing.batches.training_crops import CropConfig
from preprocessing.dataset import check_shard, read_layout, read_record, record_path
from preprocessing.sources import RoomsConfig, rooms_collection

ROOT = Path(__file__).resolve().parents[2]
ROOMS = rooms_collection(
    RoomsConfig(rooms=40, building_windows=0, seed=0)
)  # enough that seed 31's split is not empty
SMALL = VolumeNetworkConfig(
    feature_size=8, encoder_hidden=8, encoder_blocks=2, unet_levels=2, decoder_hidden=8, decoder_blocks=2
)
CROPS = CropConfig(grid=64, window_grid=32, queries=512, cache_bytes=2**28)


def config(steps: int, workers: int = 1) -> TrainConfig:
    training = TrainingConfig(steps=steps, batch_size=1, warmup_steps=2)
    return TrainConfig(SMALL, training, CROPS, workers=workers, checkpoint_every=2, validation_batches=1)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rooms.zarr"
    with ray_session("local", cpus=2):
        summary = preprocess(ROOMS, path)
    assert (summary.shapes, summary.shards_kept, summary.rejected) == (40, 0, ())
    return path


def test_another_number_of_workers_gives_the_same_bytes_and_a_restart_only_the_missing(
    rooms: Path, tmp_path: Path
) -> None:
    other = tmp_path / "rooms.zarr"
    with ray_session("local", cpus=1):
        preprocess(ROOMS, other)
        layout, _ = read_layout(other)
        first = [read_record(other, shard) for shard in range(layout.shards)]
        assert first == [read_record(rooms, shard) for shard in range(layout.shards)]
        record_path(other, 3).unlink()
        damaged = other / "points" / "c" / "1" / "0" / "0"
        damaged.write_bytes(damaged.read_bytes()[:-7])
        summary = preprocess(ROOMS, other)
    assert (summary.shards_made, summary.shards_kept) == (2, layout.shards - 2)
    assert summary.repairs == ("shard 1: points: missing or damaged",)
    assert [read_record(other, shard) for shard in range(layout.shards)] == first
    assert all(check_shard(other, shard) == [] for shard in range(layout.shards))


def test_two_workers_train_together_and_the_weights_load(rooms: Path, tmp_path: Path) -> None:
    with ray_session("local", cpus=2):
        summary = train(rooms, tmp_path / "run", config(steps=4, workers=2), device="cpu")
        assert summary.steps == 4
        assert load_network(str(summary.model)).config == SMALL
        with pytest.raises(RunDirectoryError, match="another configuration"):
            train(rooms, tmp_path / "run", config(steps=5, workers=2), device="cpu")


PROGRAM = """
import sys
from pathlib import Path
from tests.pipeline.test_training import config
from pipeline import train
summary = train(Path(sys.argv[1]), Path(sys.argv[2]), config(steps=40), device="cpu", address="local")
print("steps", summary.steps)
"""


def test_a_killed_training_worker_continues_from_its_checkpoint(rooms: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(rooms), str(tmp_path / "run")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "metrics.jsonl"
    registered = tmp_path / "run" / "ray" / "checkpoint_manager_snapshot.json"  # what Ray Train restores from
    deadline = time.monotonic() + 180
    while not (registered.exists() and '"checkpoint_dir_name"' in registered.read_text()):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(child.cmdline())
    ]
    assert workers
    workers[0].kill()
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr[-3000:]
    assert "steps 40" in stdout
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps[-1] == 40
    after_restart = [step for before, step in itertools.pairwise(steps) if step != before + 2]
    # Ray Train registers checkpoints every second or two, so the steps since then were done again: not all.
    assert all(step > 2 for step in after_restart), steps
