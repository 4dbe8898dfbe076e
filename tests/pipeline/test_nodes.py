"""Real raylets that vanish, come late, or stand still: data and weights are those of one undisturbed machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
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
    for process in psutil.Process().children(recursive=True):
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


def environment() -> dict[str, str]:
    """Of a head and of commands that join it: this process has had sessions with tokens of their own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"RAY_AUTH_MODE": "disabled"}


@contextmanager
def head_of_its_own() -> Iterator[str]:
    """The address of a head node of one processor that nothing in this process has to do with."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: Ray's sockets live below it
    options = [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--include-dashboard=false"]
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--temp-dir={folder}", "--block"]
    process = subprocess.Popen(
        [*start, *options, "--disable-usage-stats"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while "Ray runtime started" not in (line := process.stdout.readline()):
            assert line, "it has not started"
        yield f"127.0.0.1:{port}"
    finally:
        for member in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.Error):
                member.kill()
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_when_the_head_is_lost_one_line_says_so_and_the_same_command_finishes(tmp_path: Path) -> None:
    store = tmp_path / "rooms.zarr"
    arguments = ["preprocess", "rooms", "--out", str(store), "--rooms", "24", "--building-windows", "0"]
    with head_of_its_own() as address:
        running = command(*arguments, "--address", address)
        wait_for(
            lambda: shards_done(store) >= 1, lambda: running.poll() is None, lambda: running.communicate()[1]
        )
    _, stderr = running.communicate(timeout=90)
    assert running.returncode == 1
    errors = [line for line in stderr.splitlines() if line.startswith("tessera: ")]
    assert len(errors) == 1 and "run the same command again" in errors[0]
    assert "Traceback" not in stderr
    with head_of_its_own() as address:
        again = command(*arguments, "--address", address)
        stdout, stderr = again.communicate(timeout=200)
    assert again.returncode == 0, stderr
    assert "24 of 24 shapes" in stdout and "0 kept" not in stdout
    layout, _ = read_layout(store)
    assert all(check_shard(store, shard) == [] for shard in range(layout.shards))
