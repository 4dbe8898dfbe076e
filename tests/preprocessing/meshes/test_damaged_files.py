"""Damaged files of every kind, a part of `benchmarks.fuzz_readers`: each is read or refused in the bounded process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.fuzz_readers import damaged, read_whole, samples, verdicts
from pipeline.isolation import CallLimits

MUTATIONS = 240
LIMITS = CallLimits(timeout_s=60.0, memory_bytes=2 * 2**30)  # the tests' machine may be busy


def test_whatever_is_damaged_is_read_or_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    (tmp_path / "damaged").mkdir()
    sound = samples(tmp_path / "sound")
    assert len(sound) >= 25
    outcomes = list(verdicts(sound, MUTATIONS, seed=1, folder=tmp_path / "damaged", limits=LIMITS))
    failures = [(name, number, verdict) for name, number, verdict in outcomes if verdict.is_failure]
    assert not failures
    assert sum(verdict.outcome == "refused" for *_, verdict in outcomes) > MUTATIONS / 4


def test_the_sound_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    (tmp_path / "again").mkdir()
    sound = samples(tmp_path / "sound")
    for name in sound:
        assert read_whole(str(tmp_path / "sound" / name)) == ("read", ""), name


def test_damage_depends_on_the_seed_alone() -> None:
    data = bytes(range(256)) * 8
    first, second = (damaged(data, np.random.default_rng([3, 4])) for _ in range(2))
    assert first == second != data
