"""From the command to the mesh of a small scan: what start-up costs.

    python -m benchmarks.startup [--runs 5] [--output startup.json]

Each run is a process of its own, `tessera reconstruct` of points evenly drawn on a unit sphere, with default settings.
The first run reads the libraries from the disk and is reported apart; the median is that of the others. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import machine, tell
from preprocessing.scan_files import write_scan_ply

POINTS = 20_000
BOUND_S = 5.0


def sphere(points: int) -> np.ndarray:
    """Points (N, 3) evenly drawn on the unit sphere."""
    directions = np.random.default_rng(0).normal(size=(points, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def run(scan: Path, out: Path) -> dict[str, Any]:
    """Reconstruct a scan in a new process: seconds in all, of its stages, and what came out."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pipeline.cli", "reconstruct", str(scan), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    report = json.loads((out / "report.json").read_text())
    stages = float(sum(report["seconds"].values()))
    return {
        "seconds": round(seconds, 2),
        "stages_s": round(stages, 2),
        "is_watertight": report["is_watertight"],
        "faces": report["faces"],
    }


def main() -> None:
    """Run and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="after the first")
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scan_ply(folder / "sphere.ply", sphere(arguments.points))
        # Of all processors over one second: a busy machine is seen in the figures.
        busy_percent = psutil.cpu_percent(interval=1.0)
        runs = [run(folder / "sphere.ply", folder / str(number)) for number in range(arguments.runs + 1)]
    report = {
        "points": arguments.points,
        "first_s": runs[0]["seconds"],
        "median_s": statistics.median(entry["seconds"] for entry in runs[1:]) if arguments.runs else None,
        "median_stages_s": statistics.median(entry["stages_s"] for entry in runs[1:])
        if arguments.runs
        else None,
        "bound_s": BOUND_S,
        "busy_percent_before": busy_percent,
        "runs": runs,
        "machine": machine(),
    }
    tell(report, arguments.output)


if __name__ == "__main__":
    main()
