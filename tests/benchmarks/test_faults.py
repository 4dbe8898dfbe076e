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
@pytest.mark.parametrize(("stage", "count"), [("reconstruct", 4), ("preprocess", 2)])
def test_faults_of_a_stage_heal(stage: str, count: int) -> None:
    seed = random.randrange(1 << 32)
    arguments = [sys.executable, "-m", "benchmarks.faults", f"--{stage}", str(count), "--seed", str(seed)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stderr[-4000:]}\n{done.stdout[-4000:]}"
    assert sum(json.loads(done.stdout)["cases"][stage]["faults"].values()) == count
