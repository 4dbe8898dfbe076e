"""Leases: one holder at a time, whatever crashes, hangs or starts at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import lease as module
from pipeline.errors import RunDirectoryError
from pipeline.lease import LEASE_FILE, lease

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pipeline.filesystem_storage import open_storage
from pipeline.lease import lease
with lease(open_storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def held_elsewhere(place: Path | str) -> subprocess.Popen[str]:
    """Another process that holds a folder, or the storage at a URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_command_is_told_who_holds_it_and_goes_on_as_soon_as_that_is_killed(tmp_path: Path) -> None:
    holder = held_elsewhere(tmp_path)
    try:
        with (
            pytest.raises(RunDirectoryError, match=rf"process {holder.pid} on .* was alive \d+ s ago"),
            lease(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lease(tmp_path):
        assert json.loads((tmp_path / LEASE_FILE).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ['{"identity": "x", "host": "elsewhere", "process": 1, "started": 0}', "{", ""]
)
def test_a_lease_from_elsewhere_holds_until_it_expires(content: str, tmp_path: Path) -> None:
    file = tmp_path / LEASE_FILE
    file.write_text(content)
    with pytest.raises(RunDirectoryError, match="another command"), lease(tmp_path):
        pass
    past = file.stat().st_mtime - module.EXPIRES_S - 1
    os.utime(file, (past, past))
    with lease(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lease_from_the_future_ends_if_nobody_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRES_S", 1.0)
    monkeypatch.setattr(module, "RENEW_S", 0.3)
    future = time.time() + 7200
    for name in (LEASE_FILE, f"{LEASE_FILE}.turn"):
        (tmp_path / name).write_text('{"identity": "x", "host": "elsewhere", "process": 1, "started": 0}')
        os.utime(tmp_path / name, (future, future))
    started = time.monotonic()
    with lease(tmp_path):
        assert time.monotonic() - started >= 1.0
    assert list(tmp_path.iterdir()) == []


def test_a_lease_from_the_future_holds_if_its_holder_renews_it(tmp_path: Path) -> None:
    holder = held_elsewhere(tmp_path)
    try:
        future = time.time() + 7200
        os.utime(tmp_path / LEASE_FILE, (future, future))
        with pytest.raises(RunDirectoryError, match=rf"process {holder.pid} on"), lease(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("trial", range(20))  # they meet in the narrow places only now and then
def test_of_many_that_start_at_once_one_holds_it(trial: int, tmp_path: Path) -> None:
    past = time.time() - 100
    (tmp_path / LEASE_FILE).write_text("{}")
    os.utime(tmp_path / LEASE_FILE, (past, past))
    gate, holding, most = threading.Barrier(16), [], []

    def start(number: int) -> bool:
        gate.wait()
        try:
            with lease(tmp_path):
                holding.append(number)
                most.append(len(holding))
                time.sleep(0.2)
                holding.remove(number)
                return True
        except RunDirectoryError:
            return False

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(start, range(16))) >= 1
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_take_over_whose_owner_died_in_between_is_finished(tmp_path: Path) -> None:
    past = time.time() - 100
    for name in (LEASE_FILE, f"{LEASE_FILE}.turn"):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (past, past))
    with lease(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LEASE_FILE]
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_stood_still_and_was_replaced_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_S", 0.05)
    with pytest.raises(RunDirectoryError, match="has taken it over"), lease(tmp_path):
        (tmp_path / LEASE_FILE).write_text('{"identity": "x", "host": "other", "process": 1, "started": 0}')
        time.sleep(10)
    assert (tmp_path / LEASE_FILE).exists()  # the other's


def test_a_holder_renews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_S", 0.05)
    with lease(tmp_path):
        file = tmp_path / LEASE_FILE
        os.utime(file, (0, 0))
        time.sleep(0.5)
        assert time.time() - file.stat().st_mtime < 60
