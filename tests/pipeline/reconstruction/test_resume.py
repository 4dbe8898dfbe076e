"""Killing a run at any moment loses no finished tile and changes no byte of the mesh."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline import reconstruct
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.merge import finished_tiles, vertices_file
from pipeline.reconstruction.store import RunStore
from preprocessing.scan_files import write_scan_ply

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from pipeline import reconstruct
from pipeline.reconstruction import ReconstructConfig
config = ReconstructConfig(voxel_size=0.125, max_tile_voxels=24)
report = reconstruct(Path(sys.argv[1]), Path(sys.argv[2]), config, address="local", show_progress=False)
print(report.tiles_computed, report.tiles_kept)
"""
KILLS = 10


def start(scan: Path, out: Path) -> subprocess.Popen[str]:
    """The run in a process group of its own, with a Ray of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(scan), str(out)],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Wait for the end; (tiles computed, tiles kept)."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    computed, kept = stdout.split()[-2:]
    return int(computed), int(kept)


def kill_everything(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver, its workers and its Ray, all at once."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, scene_points: np.ndarray
) -> tuple[Path, bytes, float, int]:
    """(scan, bytes of the mesh, seconds, number of tiles) of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("resume")
    scan = folder / "scene.ply"
    write_scan_ply(scan, scene_points[:12_000])
    started = time.monotonic()
    computed, kept = finish(start(scan, folder / "run"))
    assert kept == 0
    return scan, (folder / "run" / "mesh.ply").read_bytes(), time.monotonic() - started, computed


def test_ten_kills_change_nothing_and_lose_no_tile(
    uninterrupted: tuple[Path, bytes, float, int], tmp_path: Path
) -> None:
    scan, mesh, seconds, tiles = uninterrupted
    seed = int(os.environ.get("TESSERA_SEED", time.time_ns() % 1_000_000))
    print(f"TESSERA_SEED={seed}")
    rng = random.Random(seed)
    out = tmp_path / "run"
    before = 0
    for _ in range(KILLS):
        process = start(scan, out)
        # Between the start of the interpreter and just after the whole run would have ended.
        try:
            process.wait(rng.uniform(0.2, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            kill_everything(process)
        else:
            process.communicate()
        done = len(finished_tiles(RunStore(str(out)))) if out.exists() else 0
        assert done >= before, "a finished tile was lost"
        before = done
    computed, kept = finish(start(scan, out))
    assert kept == before
    assert computed == tiles - before
    assert (out / "mesh.ply").read_bytes() == mesh
    assert json.loads((out / "report.json").read_text())["is_watertight"]
    leftovers = [path.name for path in out.rglob("*") if ".partial" in path.name and path.parent == out]
    assert (out / "mesh.ply").name not in leftovers


def test_a_killed_worker_is_replaced_and_the_run_goes_on(
    uninterrupted: tuple[Path, bytes, float, int], tmp_path: Path
) -> None:
    scan, mesh, _, tiles = uninterrupted
    process = start(scan, tmp_path / "run")
    killed = 0
    deadline = time.monotonic() + 120
    while killed < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                busy = "ray::_on_assigned_device" in " ".join(child.cmdline())
            except psutil.Error:
                continue
            if busy and killed < 2:
                child.kill()
                killed += 1
                time.sleep(0.5)
                break
    assert killed, "no worker was seen at work"
    computed, _ = finish(process)
    assert computed == tiles
    assert (tmp_path / "run" / "mesh.ply").read_bytes() == mesh


def test_a_tile_that_is_lost_after_the_run_is_computed_again(
    scene_points: np.ndarray, tmp_path: Path
) -> None:
    """Its neighbors' fields and the coarser levels are gone by then, and are made again from the points."""
    write_scan_ply(tmp_path / "scene.ply", scene_points[:12_000])
    config = ReconstructConfig(voxel_size=0.125)
    first = reconstruct(tmp_path / "scene.ply", tmp_path / "run", config, show_progress=False)
    mesh = (tmp_path / "run" / "mesh.ply").read_bytes()
    (lost,) = finished_tiles(RunStore(str(tmp_path / "run")))
    (tmp_path / "run" / vertices_file(lost)).unlink()
    again = reconstruct(tmp_path / "scene.ply", tmp_path / "run", config, show_progress=False)
    assert (first.tiles_computed, again.tiles_computed) == (1, 1)
    assert (tmp_path / "run" / "mesh.ply").read_bytes() == mesh


def test_a_scene_of_one_tile_does_not_depend_on_the_threads_of_the_program(
    scene_points: np.ndarray, tmp_path: Path
) -> None:
    write_scan_ply(tmp_path / "scene.ply", scene_points[:6_000])
    threads = torch.get_num_threads()
    meshes = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            run = tmp_path / str(count)
            reconstruct(tmp_path / "scene.ply", run, ReconstructConfig(voxel_size=0.2), show_progress=False)
            assert torch.get_num_threads() == count
            meshes.append((run / "mesh.ply").read_bytes())
    finally:
        torch.set_num_threads(threads)
    assert meshes[0] == meshes[1] == meshes[2]
