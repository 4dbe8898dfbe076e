"""Memory of the tasks of the largest tiles, and what a machine with many cores and little memory does with them.

    python -m benchmarks.tile_memory [--output tile_memory.json]

A hollow house of eight tiles of the default size is reconstructed twice: by 2 processors, and by 16 logical ones with
8 GB to share. Prints JSON: how many tasks ran at once, the largest resident size of a worker beside what its task
requested, the peak of all processes, and whether both meshes have the same bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from benchmarks.machine import machine, tell
from pipeline import reconstruct
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.manifest import read_manifest
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.tile_memory import tile_memory
from preprocessing.scan_files import write_scan_ply

VOXEL = 0.05
SIDE = 2 * 112 - 16  # voxels: two tiles of the largest size, with the free space around the scan
POINTS_PER_FACE = 4
CORES, MEMORY = 16, 8 * 10**9


class TasksAtOnce:
    """The largest number of workers that were seen at work on tiles, and the largest resident size of one."""

    def __init__(self) -> None:
        self.most = self.largest_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> TasksAtOnce:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            at_work = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    if "ray::_on_assigned" in " ".join(process.cmdline()):
                        at_work += 1
                        self.largest_bytes = max(self.largest_bytes, process.memory_info().rss)
                except psutil.Error:
                    continue
            self.most = max(self.most, at_work)


def hollow_house() -> np.ndarray:
    """Points (N, 3) on the faces of a cube, and on two walls and a ceiling through its middle."""
    rng = np.random.default_rng(0)
    faces = []
    for axis in range(3):
        for place in (0.0, 0.5, 1.0):
            face = rng.random((POINTS_PER_FACE * SIDE**2, 3))
            face[:, axis] = place
            faces.append(face)
    return SIDE * VOXEL * np.concatenate(faces)


def run(scan: Path, out: Path, cores: int, memory: int | None) -> dict[str, Any]:
    """Reconstruct on so many logical processors."""
    limits = {} if memory is None else {"_memory": memory}
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, **limits)
    try:
        with TasksAtOnce() as tasks:
            report = reconstruct(scan, out, ReconstructConfig(voxel_size=VOXEL), show_progress=False)
    finally:
        ray.shutdown()
    plans = read_manifest(RunStore(str(out))).plans
    return {
        "logical_processors": cores,
        "memory_gb": memory and memory / 1e9,
        "crop_voxels": plans[0].crop_shape,
        "tasks_at_once": tasks.most,
        "largest_worker_gib": round(tasks.largest_bytes / 2**30, 2),
        "requested_gib": round(tile_memory(plans) / 2**30, 2),
        "all_processes_gib": round(report.peak_memory_bytes / 2**30, 2),
        "seconds": report.seconds,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_scan_ply(folder / "house.ply", hollow_house())
        runs = [
            run(folder / "house.ply", folder / "2", 2, None),
            run(folder / "house.ply", folder / "16", CORES, MEMORY),
        ]
        are_same = (folder / "2" / "mesh.ply").read_bytes() == (folder / "16" / "mesh.ply").read_bytes()
    tell({"machine": machine(), "runs": runs, "same_bytes": are_same}, given.output)


if __name__ == "__main__":
    main()
