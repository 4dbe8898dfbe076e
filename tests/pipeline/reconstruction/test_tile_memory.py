"""As many tiles are computed at once as fit in Ray's memory, with the bytes of any other machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray

from benchmarks.tile_memory import TasksAtOnce
from pipeline import reconstruct
from pipeline.cluster import device_lanes, ray_session, run_in_lanes
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.manifest import read_manifest
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.tile_memory import tile_memory
from preprocessing.scan_files import write_scan_ply
from tests.pipeline.placement import where

CONFIG = ReconstructConfig(voxel_size=0.2, max_tile_voxels=24)
FIT = 3

pytestmark = pytest.mark.cluster


def test_many_processors_and_little_memory(scene_points: np.ndarray, tmp_path: Path) -> None:
    scan = tmp_path / "scene.ply"
    write_scan_ply(scan, scene_points[:12_000])
    with ray_session("local", cpus=2):
        reconstruct(scan, tmp_path / "two", CONFIG, show_progress=False)
    each = tile_memory(read_manifest(RunStore(str(tmp_path / "two"))).plans)
    ray.init(num_cpus=16, _memory=int((FIT + 0.5) * each), include_dashboard=False, log_to_driver=False)
    try:
        with TasksAtOnce() as tasks:
            reconstruct(scan, tmp_path / "many", CONFIG, show_progress=False)
    finally:
        ray.shutdown()
    assert 2 <= tasks.most <= FIT
    assert tasks.largest_bytes <= each
    assert (tmp_path / "many" / "mesh.ply").read_bytes() == (tmp_path / "two" / "mesh.ply").read_bytes()


def test_a_task_larger_than_every_node_runs_alone() -> None:
    ray.init(num_cpus=4, _memory=2**30, include_dashboard=False, log_to_driver=False)
    try:
        lanes = device_lanes(where, "cpu", 0, 2**40, 0)
        assert len(list(run_in_lanes(lanes, range(3)))) == 3
    finally:
        ray.shutdown()
