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
from ray.cluster_utils import Cluster

from pipeline import preprocess, train
from pipeline.cluster import ray_session
from preprocessing.dataset import read_layout, read_record
from preprocessing.sources import RoomsConfig, rooms_collection
from tests.pipeline.test_training import config

ROOT = Path(__file__).resolve().parents[2]
ROOMS = rooms_collection(RoomsConfig(rooms=40, building_windows=0, seed=0))
STEPS = 12

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Undisturbed:
    """What one machine makes."""

    rooms: Path
    weights: bytes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    with ray_session("local", cpus=2):
        preprocess(ROOMS, folder / "rooms.zarr")
        summary = train(folder / "rooms.zarr", folder / "run", config(STEPS, workers=2), device="cpu")
    return Undisturbed(folder / "rooms.zarr", summary.model.read_bytes())


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


def wait_for(condition: Callable[[], bool], is_running: Callable[[], bool], timeout_s: float = 150) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert is_running(), "it ended before anything was done to it"
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
    store = tmp_path / "rooms.zarr"
    with cluster_of(2) as cluster:
        (second,) = cluster.worker_nodes
        thread, done = in_thread(lambda: preprocess(ROOMS, store, address=cluster.address))
        wait_for(lambda: shards_done(store) >= 1, thread.is_alive)
        hold_up_a_worker(2.0)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        thread.join(200)
        assert done
    check_same_data(store, undisturbed.rooms)


def test_training_survives_a_node_that_vanishes_and_uses_one_that_comes_late(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with cluster_of(2) as cluster:
        (second,) = cluster.worker_nodes
        settings = config(STEPS, workers=2)
        thread, done = in_thread(
            lambda: train(undisturbed.rooms, out, settings, device="cpu", address=cluster.address)
        )
        wait_for(lambda: has_checkpoint(out), thread.is_alive)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        thread.join(240)
        assert done
    assert (out / "model.safetensors").read_bytes() == undisturbed.weights


def command(*arguments: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_when_the_head_is_lost_one_line_says_so_and_the_same_command_finishes(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    store = tmp_path / "rooms.zarr"
    arguments = ["preprocess", "rooms", "--out", str(store), "--rooms", "40", "--building-windows", "0"]
    with cluster_of(1) as cluster:
        running = command(*arguments, "--address", cluster.address)
        wait_for(lambda: shards_done(store) >= 1, lambda: running.poll() is None)
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
        assert "shards made" in stdout
    check_same_data(store, undisturbed.rooms)
