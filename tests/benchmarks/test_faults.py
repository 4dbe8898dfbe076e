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
def test_faults_of_a_reconstruction_heal() -> None:
    seed = random.randrange(1 << 32)
    command = [sys.executable, "-m", "benchmarks.faults", "--reconstruct", "3", "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stderr[-4000:]}\n{done.stdout[-4000:]}"
    assert sum(json.loads(done.stdout)["cases"]["reconstruct"]["faults"].values()) >= 3
