"""A few faults at random moments of real commands; `python -m benchmarks.faults` draws hundreds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.cluster
@pytest.mark.parametrize(("case", "count"), [("reconstruct", 6), ("preprocess", 2), ("train", 2)])
def test_nothing_wrong_is_believed_and_every_error_is_short_and_heals(case: str, count: int) -> None:
    seed = random.randrange(1 << 32)
    command = [sys.executable, "-m", "benchmarks.faults", f"--{case}", str(count), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stderr[-3000:]}\n{done.stdout[-3000:]}"
    assert sum(json.loads(done.stdout)["cases"][case]["faults"].values()) >= count
