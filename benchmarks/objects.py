"""Closed objects, sampled all round: is each one solid, whole and alone, whatever its size in voxels?

    python -m benchmarks.objects --data ../shared/data/meshes --out out/objects [--quick | --limit 12] [--json FILE]

Every mesh below `--data` after the watertight step of `preprocess`, and a box, a sphere, a torus and organic
blobs, scaled to a longest side of 1 m, with 3,000, 30,000 and 300,000 points spread evenly by area, exact or
with noise of 0.5% of the longest side, reconstructed with default settings. Prints JSON: the mean IoU with the exact
solid (200,000 places; a failure counts 0) and the share of meshes with the right number of components, for each number
of points and noise, and every case. Exit code 1 if a bound is missed. Run it again to continue; another model or
version wants another folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.closed_solids import ClosedSolid, collected_solids, procedural_solids
from benchmarks.machine import machine, tell
from pipeline import reconstruct
from pipeline.cluster import ray_session
from pipeline.errors import PipelineError
from pipeline.reconstruction import ReconstructConfig
from preprocessing.errors import GeometryError
from preprocessing.meshes.checks import check_mesh
from preprocessing.meshes.files import read_mesh
from preprocessing.metrics import evaluate_mesh
from preprocessing.scan_files import write_scan_ply
from preprocessing.surface_sampling import sample_surface

POINTS = (3_000, 30_000, 300_000)
NOISES = (0.0, 0.005)  # of the longest side
IOU_BOUNDS = {3_000: 0.92, 30_000: 0.95, 300_000: 0.95}
COMPONENTS_BOUND = 0.95  # share of the meshes with the right number of components
QUICK_COLLECTED = 4
QUICK_POINTS = (3_000, 30_000)


@dataclass(frozen=True)
class Case:
    """One reconstruction.

    Attributes:
        solid: its name.
        points: sampled from its surface.
        noise: standard deviation along each axis, of the longest side.
        iou: with the exact solid; 0 where the reconstruction failed.
        components, right_components: of the mesh, and of the exact surface.
        f_score, normal_consistency: at 1% of the longest side; unsigned.
        is_watertight: every edge has two faces.
        voxel_size: meters; the longest side is 1 m.
        seconds: of the reconstruction.
        error: what it failed with.
    """

    solid: str
    points: int
    noise: float
    iou: float
    components: int
    right_components: int
    f_score: float
    normal_consistency: float
    is_watertight: bool
    voxel_size: float
    seconds: float
    error: str = ""


def measure(solid: ClosedSolid, points: int, noise: float, out: Path, config: ReconstructConfig) -> Case:
    """Sample, reconstruct and measure one solid, or read what an earlier run measured."""
    folder = out / f"{solid.name}-{points}-{noise:g}"
    stored = folder / "case.json"
    if stored.exists():
        return Case(**json.loads(stored.read_text()))
    rng = np.random.default_rng([points, round(1000 * noise)])
    cloud, _ = sample_surface(solid.vertices, solid.faces, points, rng)
    cloud += rng.normal(0, noise * solid.longest_side, cloud.shape)
    folder.mkdir(parents=True, exist_ok=True)
    write_scan_ply(folder / "scan.ply", cloud)
    right = check_mesh(solid.vertices, solid.faces).components
    started = time.monotonic()
    try:
        report = reconstruct(
            folder / "scan.ply", folder / "run", config, mesh=folder / "mesh.ply", show_progress=False
        )
        mesh = read_mesh(folder / "mesh.ply")
    except (GeometryError, PipelineError) as error:
        seconds = time.monotonic() - started
        case = Case(solid.name, points, noise, 0.0, 0, right, 0.0, 0.0, False, 0.0, seconds, str(error))
    else:
        seconds = time.monotonic() - started
        metrics = evaluate_mesh(
            mesh.vertices,
            mesh.faces,
            solid.vertices,
            solid.faces,
            sample_count=20_000,
            volume_queries=200_000,
        )
        check = check_mesh(mesh.vertices, mesh.faces)
        case = Case(
            solid=solid.name,
            points=points,
            noise=noise,
            iou=round(metrics.iou or 0.0, 4),
            components=check.components,
            right_components=right,
            f_score=round(metrics.f_score, 4),
            normal_consistency=round(metrics.normal_consistency, 4),
            is_watertight=check.is_watertight,
            voxel_size=round(report.voxel_size, 5),
            seconds=round(seconds, 2),
        )
    shutil.rmtree(folder / "run", ignore_errors=True)  # the mesh stays, to be looked at
    stored.write_text(json.dumps(asdict(case)) + "\n")
    print(
        f"{case.solid:24} {case.points:7,} points, noise {case.noise:5}: IoU {case.iou:.3f}, "
        f"{case.components} of {case.right_components} components, {case.seconds:.1f} s {case.error}",
        file=sys.stderr,
        flush=True,
    )
    return case


def row(cases: list[Case]) -> dict[str, object]:
    """The mean of the cases of one number of points and one noise, against the bounds."""
    points = cases[0].points
    iou = statistics.mean(case.iou for case in cases)
    right = statistics.mean(case.components == case.right_components for case in cases)
    return {
        "points": points,
        "noise": cases[0].noise,
        "solids": len(cases),
        "iou": round(iou, 4),
        "iou_worst": min((case.iou, case.solid) for case in cases),
        "iou_bound": IOU_BOUNDS[points],
        "right_components": round(right, 4),
        "right_components_bound": COMPONENTS_BOUND,
        "f_score": round(statistics.mean(case.f_score for case in cases), 4),
        "normal_consistency": round(statistics.mean(case.normal_consistency for case in cases), 4),
        "failures": sum(bool(case.error) for case in cases),
        "seconds": round(sum(case.seconds for case in cases), 1),
        "passed": iou >= IOU_BOUNDS[points] and right >= COMPONENTS_BOUND,
    }


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/meshes"), help="folder of meshes")
    parser.add_argument("--out", type=Path, default=Path("out/objects"))
    parser.add_argument("--cache", type=Path, default=Path("out/closed_meshes"), help="of the closed meshes")
    parser.add_argument("--model", default=ReconstructConfig.model)
    parser.add_argument("--limit", type=int, help="take so many of the collected meshes, spread over all")
    parser.add_argument("--only", default="", help="part of a solid's name")
    parser.add_argument("--points", type=int, nargs="+", choices=POINTS, default=POINTS)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_COLLECTED} collected meshes, no more than {QUICK_POINTS[-1]:,} points",
    )
    parser.add_argument("--json", type=Path, help="file for the report")
    given = parser.parse_args()
    limit = QUICK_COLLECTED if given.quick and given.limit is None else given.limit
    counts = [points for points in given.points if not given.quick or points in QUICK_POINTS]
    solids = procedural_solids(blobs=1 if given.quick else 4)
    solids += collected_solids(given.data, given.cache, limit)
    solids = [solid.scaled(1 / solid.longest_side) for solid in solids if given.only in solid.name]
    config = ReconstructConfig(model=given.model)
    rows, cases = [], []
    with ray_session("auto"):
        for points, noise in itertools.product(counts, NOISES):
            measured = [measure(solid, points, noise, given.out, config) for solid in solids]
            rows.append(row(measured))
            cases += measured
    passed = all(row["passed"] for row in rows)
    report = {"machine": machine(), "model": given.model, "passed": passed, "rows": rows}
    tell(report | {"cases": [asdict(case) for case in cases]}, given.json)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
