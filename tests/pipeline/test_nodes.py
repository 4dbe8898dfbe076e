"""Real raylets that vanish, come late, or stand still: data and weights are those of one undisturbed machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from safetensors.torch import load_file

from pipeline import preprocess, train
from pipeline.cluster import ray_session
from preprocessing.dataset import check_shard, read_layout, read_record
from preprocessing.sources import Collection
from tests.pipeline.small_runs import ball_training, steady_collection
from tests.preprocessing.ball_datasets import BALLS, write_balls

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Undisturbed:
    """What one machine makes of the same units, and of balls."""

    collection: Collection
    store: Path
    balls: Path
    model: Path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    collection, store = steady_collection(folder), folder / "units.zarr"
    balls = write_balls(folder / "balls.zarr", BALLS)
    with ray_session("local", cpus=2):
        preprocess(collection, store)
        summary = train(balls, folder / "run", ball_training(STEPS, workers=2), device="cpu")
    return Undisturbed(collection, store, balls, summary.model)


@contextmanager
def cluster_of(nodes: int) -> Iterator[Cluster]:
    """A head and further nodes of one processor each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def wait_for(
    condition: Callable[[], bool],
    is_running: Callable[[], bool],
    words: Callable[[], str] = str,
    timeout_s: float = 150,
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert is_running(), f"it ended before anything was done to it: {words()}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shards_done(store: Path) -> int:
    return len(list((store / "records").glob("*.json")))


def has_checkpoint(out: Path) -> bool:
    """Whether Ray Train would continue from one."""
    snapshot = out / "ray" / "checkpoint_manager_snapshot.json"
    return snapshot.exists() and '"checkpoint_dir_name"' in snapshot.read_text()


def in_thread(stage: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(stage()))
    thread.start()
    return thread, done


def check_same_data(store: Path, expected: Path) -> None:
    layout, _ = read_layout(expected)
    for shard in range(layout.shards):
        assert read_record(store, shard) == read_record(expected, shard)


def hold_up_a_worker(seconds: float) -> None:
    """Stop one of the processes that make shards for a while."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "ray::prepare_shard" in " ".join(process.cmdline()):
                process.suspend()
                time.sleep(seconds)
                process.resume()
                return


def test_data_survives_a_node_that_vanishes_one_that_stands_still_and_one_that_comes_late(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    store = tmp_path / "units.zarr"
    with cluster_of(2) as cluster:
        (second,) = cluster.worker_nodes
        thread, done = in_thread(lambda: preprocess(undisturbed.collection, store, address=cluster.address))
        wait_for(lambda: shards_done(store) >= 2, thread.is_alive)
        hold_up_a_worker(2.0)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        thread.join(200)
        assert done
    check_same_data(store, undisturbed.store)


def test_training_survives_a_node_that_vanishes_and_uses_one_that_comes_late(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with cluster_of(2) as cluster:
        (second,) = cluster.worker_nodes
        settings = ball_training(STEPS, workers=2)
        thread, done = in_thread(
            lambda: train(undisturbed.balls, out, settings, device="cpu", address=cluster.address)
        )
        wait_for(lambda: has_checkpoint(out), thread.is_alive)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        thread.join(240)
        assert done
    found, expected = load_file(out / "model.safetensors"), load_file(undisturbed.model)
    assert set(found) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def command(*arguments: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_when_the_head_is_lost_one_line_says_so_and_the_same_command_finishes(tmp_path: Path) -> None:
    store = tmp_path / "rooms.zarr"
    arguments = ["preprocess", "rooms", "--out", str(store), "--rooms", "24", "--building-windows", "0"]
    with cluster_of(1) as cluster:
        running = command(*arguments, "--address", cluster.address)
        wait_for(
            lambda: shards_done(store) >= 1, lambda: running.poll() is None, lambda: running.communicate()[1]
        )
        cluster.shutdown()
        _, stderr = running.communicate(timeout=90)
    assert running.returncode == 1
    errors = [line for line in stderr.splitlines() if line.startswith("tessera: ")]
    assert len(errors) == 1 and "run the same command again" in errors[0]
    assert "Traceback" not in stderr
    with cluster_of(1) as cluster:
        again = command(*arguments, "--address", cluster.address)
        stdout, stderr = again.communicate(timeout=200)
    assert again.returncode == 0, stderr
    assert "24 of 24 shapes" in stdout and "0 kept" not in stdout
    layout, _ = read_layout(store)
    assert all(check_shard(store, shard) == [] for shard in range(layout.shards))
