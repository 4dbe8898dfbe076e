"""Real scans with default settings: every scan of a folder, one picture each, no tuning per scan.

    python -m benchmarks.real_scans --data ../shared/data/scans --out out/real_scans [--only NAME]

Prints JSON: for each scan points, voxel size, tiles, faces, the mesh's flaws (there should be none), seconds
and peak memory. Run it again to continue.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from pipeline import reconstruct
from pipeline.reconstruction import ReconstructConfig
from preprocessing.mesh_checks import check_mesh
from preprocessing.mesh_files import read_mesh
from preprocessing.render import preview_sheet
from preprocessing.scan_files import SCAN_SUFFIXES, open_scan

PICTURE_POINTS = 3_000_000


def find_scans(data: Path) -> list[Path]:
    """Scan files below a folder; texts beside them (camera positions, notes) are not scans."""
    suffixes = set(SCAN_SUFFIXES) - {".txt", ".csv"}
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in suffixes)


def measure(scan: Path, out: Path, config: ReconstructConfig) -> dict[str, object]:
    """Reconstruct, check and draw one scan."""
    print(f"{scan.name} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    report = reconstruct(scan, out / "run", config)
    seconds = time.monotonic() - started
    mesh = read_mesh(out / "run" / "mesh.ply")
    check = check_mesh(mesh.vertices, mesh.triangles)
    chunks = list(open_scan(scan).chunks())
    points = np.concatenate([chunk.points for chunk in chunks])
    chosen = np.random.default_rng(0).permutation(len(points))[:PICTURE_POINTS]
    shades = None
    if chunks[0].colors is not None:
        shades = np.concatenate([chunk.colors for chunk in chunks if chunk.colors is not None])[chosen]
    title = f"{scan.name}: {report.points:,} points, voxel {report.voxel_size:.3g} m"
    preview_sheet(
        mesh.vertices,
        mesh.triangles,
        out / "preview.png",
        points=points[chosen],
        colors=mesh.colors,
        point_colors=shades,
        title=title,
    )
    return {
        "scan": scan.name,
        "size_m": np.round(points.max(axis=0) - points.min(axis=0), 2).tolist(),
        "is_clean": check.is_clean,
        "check": asdict(check),
        "wall_seconds": round(seconds, 1),
        "report": asdict(report),
    }


def main() -> None:
    """Measure every scan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/scans"))
    parser.add_argument("--out", type=Path, default=Path("out/real_scans"))
    parser.add_argument("--model", default=ReconstructConfig.model)
    parser.add_argument("--only", default="", help="part of a file name")
    given = parser.parse_args()
    scans = [scan for scan in find_scans(given.data) if given.only in scan.name]
    results = [measure(scan, given.out / scan.stem, ReconstructConfig(model=given.model)) for scan in scans]
    print(json.dumps({"machine": machine(), "scans": results}, indent=1))


if __name__ == "__main__":
    main()
