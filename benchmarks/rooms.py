"""The paper's setting: held-out synthetic rooms from 10,000 noisy points, measured like the papers' tables.

    python -m benchmarks.rooms --out out/rooms [--model NAME|FILE] [--rooms 20]

Prints JSON: the mean of every metric (failures count as the worst value), and each room's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from pipeline import evaluate, reconstruct
from pipeline.cluster import ray_session
from pipeline.reconstruction import ReconstructConfig
from preprocessing.meshes.files import write_mesh
from preprocessing.procedural.synthetic_rooms import synthetic_room
from preprocessing.scan_files import write_scan_ply
from preprocessing.surface_sampling import sample_surface

FIRST_SEED = 900_000_000  # far from any training seed
POINTS = 10_000
NOISE = 0.005  # of the room's side, which is 1
VOXEL = 1 / 64  # the paper's grid of 64 voxels
BARS = {"iou": 0.75, "sampled_f_score": 0.90, "normal_consistency": 0.88}


def measure(room: int, out: Path, model: str, threshold: float | None) -> dict[str, float]:
    """Reconstruct and evaluate one room."""
    seed = FIRST_SEED + room
    vertices, faces = synthetic_room(seed).mesh()
    rng = np.random.default_rng([seed, 1])
    points, _ = sample_surface(vertices, faces, POINTS, rng)
    points = points + rng.normal(0, NOISE, points.shape)
    folder = out / f"room-{room:02d}-{threshold or 'default'}"
    folder.mkdir(parents=True, exist_ok=True)
    write_scan_ply(folder / "scan.ply", points)
    write_mesh(folder / "truth.ply", vertices, faces)
    config = ReconstructConfig(model=model, voxel_size=VOXEL, threshold=threshold)
    report = reconstruct(folder / "scan.ply", folder / "run", config, show_progress=False)
    metrics = asdict(evaluate(folder / "run" / "mesh.ply", folder / "truth.ply"))
    names = (
        "iou",
        "chamfer_l1",
        "sampled_chamfer_l1_unit",
        "f_score",
        "sampled_f_score",
        "normal_consistency",
        "normal_consistency_signed",
    )
    result = {name: float(metrics[name]) for name in names}
    print(room, {name: round(value, 4) for name, value in result.items()}, file=sys.stderr, flush=True)
    return result | {"is_watertight": float(report.is_watertight)}


def main() -> None:
    """Measure all rooms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/rooms"))
    parser.add_argument("--model", default="volume-default")
    parser.add_argument("--rooms", type=int, default=20)
    parser.add_argument("--threshold", type=float, help="by default the network's own")
    given = parser.parse_args()
    with ray_session("auto"):
        rooms = [measure(room, given.out, given.model, given.threshold) for room in range(given.rooms)]
    mean = {name: statistics.mean(room[name] for room in rooms) for name in rooms[0]}
    passed = {name: mean[name] >= bar for name, bar in BARS.items()}
    print(
        json.dumps(
            {"machine": machine(), "mean": mean, "bars": BARS, "passed": passed, "rooms": rooms}, indent=1
        )
    )


if __name__ == "__main__":
    main()
