"""Several Ray nodes, one of which vanishes: the mesh stays the same, byte for byte."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from foundation.errors import SettingError
from pipeline import reconstruct
from pipeline.cluster import Lane, ray_session, run_in_lanes
from pipeline.errors import ClusterError
from pipeline.reconstruction import ReconstructConfig
from preprocessing.scan_files import write_scan_ply

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ReconstructConfig(voxel_size=0.125, max_tile_voxels=24)


@pytest.mark.cluster
def test_a_node_that_vanishes_changes_nothing(scene_points: np.ndarray, tmp_path: Path) -> None:
    scan = tmp_path / "scene.ply"
    write_scan_ply(scan, scene_points[:12_000])
    with ray_session("local", cpus=2):
        expected = reconstruct(scan, tmp_path / "one", CONFIG, show_progress=False)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        done: list[object] = []

        def run() -> None:
            done.append(
                reconstruct(scan, tmp_path / "two", CONFIG, address=cluster.address, show_progress=False)
            )

        worker = threading.Thread(target=run)
        worker.start()
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "two" / "fields").glob("*.parquet"))) < 5:
            assert time.monotonic() < deadline
            assert worker.is_alive(), "the run ended before the node was removed"
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        worker.join(240)
        assert len(done) == 1
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert done[0].tiles == expected.tiles
    assert (tmp_path / "two" / "mesh.ply").read_bytes() == (tmp_path / "one" / "mesh.ply").read_bytes()


def test_submission_is_bounded_by_the_window() -> None:
    waiting: set[int] = set()
    most = 0
    with ray_session("local", cpus=2):
        double = ray.remote(lambda number: 2 * number)

        def submit(number: int) -> ray.ObjectRef[int]:
            nonlocal most
            waiting.add(number)
            most = max(most, len(waiting))
            return double.remote(number)

        results = {}
        for number, result in run_in_lanes([Lane(submit, lambda: 4)], range(30)):
            waiting.discard(number)
            results[number] = result
    assert results == {number: 2 * number for number in range(30)}
    assert most <= 4


def refuse(number: int) -> None:
    raise SettingError(f"--voxel-size {number} is refused")


def test_an_error_of_a_task_is_raised_as_the_task_raised_it() -> None:
    with ray_session("local", cpus=1), pytest.raises(SettingError) as caught:
        list(run_in_lanes([Lane(ray.remote(refuse).remote, lambda: 1)], [3]))
    assert type(caught.value) is SettingError
    assert str(caught.value) == "--voxel-size 3 is refused"


def test_a_cluster_that_does_not_answer_is_one_clear_error() -> None:
    with pytest.raises(ClusterError, match=r"cannot reach Ray at 127\.0\.0\.1:1"), ray_session("127.0.0.1:1"):
        pass


def test_a_long_path_for_temporary_files_is_one_line_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    try:
        with (
            pytest.raises(ClusterError, match=r"too long for Ray's sockets.*TMPDIR=/tmp"),
            ray_session("local", cpus=1),
        ):
            raise AssertionError("Ray started")
    finally:
        monkeypatch.setattr("tempfile.tempdir", None)


def test_a_start_in_which_ray_loses_a_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nMore about it.")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ClusterError, match=r"^cannot start Ray: The current node .* startup\.; .* again$"),
        ray_session(),
    ):
        pass


@pytest.mark.parametrize("is_started", [False, True])
def test_a_process_that_native_code_ends_leaves_a_word(is_started: bool) -> None:
    program = (
        "import os, ray, pipeline.cluster\n"
        f"ray.init = lambda **_: None if {is_started} else os._exit(1)\n"
        "with pipeline.cluster.ray_session('local'): os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "tessera: ended by Ray or from outside; what is finished is kept: run the same command again\n"
    )


def test_a_private_ray_opens_without_waiting_for_workers_that_die_at_their_start(tmp_path: Path) -> None:
    """Ray's own default is to wait for the first ones, for ever."""
    dead = tmp_path / "worker.py"
    dead.write_text("raise SystemExit(1)\n")
    program = (
        "from ray._private.parameter import RayParams\n"
        "from pipeline.cluster import ray_session\n"
        "update = RayParams.update_if_absent\n"
        "def changed(self, **given):\n"
        "    if 'worker_path' in given:\n"
        f"        given['worker_path'] = {str(dead)!r}\n"
        "    update(self, **given)\n"
        "RayParams.update_if_absent = changed\n"
        "with ray_session('local', cpus=1):\n"
        "    print('open')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "open\n", "")
