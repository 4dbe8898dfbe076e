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
from numpy.typing import NDArray

from benchmarks.machine import machine
from pipeline import reconstruct
from pipeline.reconstruction import ReconstructConfig
from preprocessing.formats import SCAN_SUFFIXES
from preprocessing.meshes.checks import check_mesh
from preprocessing.pictures.render import preview_sheet
from preprocessing.scan_files import open_scan

PICTURE_POINTS = 3_000_000
PICTURE_FACES = 12_000_000


def find_scans(data: Path) -> list[Path]:
    """Scan files below a folder; texts beside them (camera positions, notes) are not scans."""
    suffixes = set(SCAN_SUFFIXES) - {".txt", ".csv"}
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in suffixes)


def map_ply(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.uint8] | None]:
    """Vertices, faces and colors of a mesh that Tessera wrote, without reading more than is asked for."""
    with path.open("rb") as file:
        header = [file.readline().decode().split()]
        while header[-1] != ["end_header"]:
            header.append(file.readline().decode().split())
        start = file.tell()
    counts = {words[1]: int(words[2]) for words in header if words[0] == "element"}
    kinds = {"double": "<f8", "float": "<f4", "uchar": "u1"}
    fields = [
        (words[2], kinds[words[1]]) for words in header if words[0] == "property" and words[1] != "list"
    ]
    rows = np.memmap(path, np.dtype(fields), "r", start, (counts["vertex"],))
    face = np.dtype([("count", "u1"), ("corners", "<i4", (3,))])
    faces = np.memmap(path, face, "r", start + rows.nbytes, (counts["face"],))
    vertices = np.stack([rows[axis] for axis in "xyz"], axis=1)
    names = ("red", "green", "blue")
    colors = np.stack([rows[name] for name in names], axis=1) if "red" in rows.dtype.names else None
    return vertices, faces["corners"], colors


def clustered(
    vertices: NDArray[np.float64], faces: NDArray[np.int32], colors: NDArray[np.uint8] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint8] | None]:
    """A mesh small enough to draw: vertices of one grid cell become one; a small mesh stays as it is."""
    if len(faces) <= PICTURE_FACES:
        return vertices, np.asarray(faces, np.int64), colors
    low = vertices.min(axis=0)
    area = float((vertices.max(axis=0) - low)[:2].prod())
    cell = 3.0 * np.sqrt(area / PICTURE_FACES)
    keys = np.floor((vertices - low) / cell).astype(np.int64) @ np.array([1 << 42, 1 << 21, 1])
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    kept = []
    for start in range(0, len(faces), 1 << 22):
        faces = number[faces[start : start + (1 << 22)]]
        ends = faces[:, [1, 2, 0]]
        kept.append(faces[(faces != ends).all(axis=1)].astype(np.int32))
    return vertices[first], np.concatenate(kept).astype(np.int64), None if colors is None else colors[first]


def measure(scan: Path, out: Path, config: ReconstructConfig) -> dict[str, object]:
    """Reconstruct, check and draw one scan."""
    print(f"{scan.name} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    report = reconstruct(scan, out / "run", config)
    seconds = time.monotonic() - started
    positions, faces, tints = map_ply(out / "run" / "mesh.ply")
    check = check_mesh(positions, faces)
    print(f"{scan.name}: {asdict(check)}", file=sys.stderr, flush=True)
    positions, faces, tints = clustered(positions, faces, tints)
    chunks = list(open_scan(scan).chunks())
    points = np.concatenate([chunk.points for chunk in chunks])
    chosen = np.random.default_rng(0).permutation(len(points))[:PICTURE_POINTS]
    shades = None
    if chunks[0].colors is not None:
        shades = np.concatenate([chunk.colors for chunk in chunks if chunk.colors is not None])[chosen]
    title = f"{scan.name}: {report.points:,} points, voxel {report.voxel_size:.3g} m"
    preview_sheet(
        positions,
        faces,
        out / "preview.png",
        points=points[chosen],
        colors=tints,
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
