"""A whole run in an object store: the mesh of a local run, byte for byte, also when it is resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.filesystem_storage import open_storage
from pipeline.reconstruction.merge import finished_tiles, vertices_file
from pipeline.reconstruction.store import RunStore
from preprocessing.scan_files import write_scan_ply
from tests.object_store import object_store

ROOT = Path(__file__).resolve().parents[3]


def command(scan: Path, out: str, mesh: Path) -> subprocess.CompletedProcess[str]:
    """Several tiles, with a Ray of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    small = ["--voxel-size", "0.25", "--query-voxels", "12"]
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "reconstruct", str(scan), "--out", out, "--mesh", str(mesh), *small],
        cwd=ROOT, env=kept, capture_output=True, text=True, timeout=400,
    )  # fmt: skip


@pytest.mark.cluster
def test_a_run_in_an_object_store_resumes_and_equals_the_local_one(
    tmp_path: Path, scene_points: np.ndarray
) -> None:
    scan = tmp_path / "scene.ply"
    write_scan_ply(scan, scene_points[(scene_points < (3.5, 2.5, 2.5)).all(axis=1)][::3])
    local = command(scan, str(tmp_path / "run"), tmp_path / "local.ply")
    assert local.returncode == 0, local.stderr
    with object_store() as place:
        url = place.format("runs/scene")
        first = command(scan, url, tmp_path / "first.ply")
        assert first.returncode == 0, first.stderr
        assert (tmp_path / "first.ply").read_bytes() == (tmp_path / "local.ply").read_bytes()
        assert RunStore(url).names("tiles") == RunStore(str(tmp_path / "run")).names("tiles")
        assert open_storage(url).names() == ["manifest.json", "points/", "report.json", "tiles/"]

        lost, *kept = finished_tiles(RunStore(url))
        open_storage(url).delete(vertices_file(lost))
        again = command(scan, url, tmp_path / "again.ply")
        assert again.returncode == 0, again.stderr
        assert f"tiles: 1 computed, {len(kept)} kept from an earlier run" in again.stdout
        assert kept
        assert (tmp_path / "again.ply").read_bytes() == (tmp_path / "local.ply").read_bytes()
