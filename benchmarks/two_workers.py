"""Many short trainings of two workers: every one must end, and with the same weights.

    python -m benchmarks.two_workers [--runs 200] [--output two_workers.json]

Two processes train a tiny network for two steps, again and again. A process group that is taken down in the wrong
order hangs once in many runs. Prints JSON: how many runs ended, their seconds, how many different weights they gave.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

from benchmarks.machine import machine, tell
from pipeline import train
from pipeline.cluster import ray_session
from tests.pipeline.small_runs import ball_training
from tests.preprocessing.ball_datasets import BALLS, write_balls


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    settings = ball_training(2, workers=2)
    seconds, weights = [], set()
    with tempfile.TemporaryDirectory() as place, ray_session("local", cpus=2):
        balls = write_balls(Path(place) / "balls.zarr", BALLS)
        for number in range(given.runs):
            started = time.monotonic()
            out = Path(place) / "run"
            # Tensors, not bytes: safetensors writes its words of metadata in any order.
            tensors = load_file(train(balls, out, settings, device="cpu").model)
            weights.add(b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors)))
            shutil.rmtree(out)
            seconds.append(time.monotonic() - started)
            print(f"{number + 1} of {given.runs}: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    report = {
        "machine": machine(),
        "runs": len(seconds),
        "median_s": round(statistics.median(seconds), 2),
        "longest_s": round(max(seconds), 2),
        "different_weights": len(weights),
    }
    tell(report, given.output)


if __name__ == "__main__":
    main()
