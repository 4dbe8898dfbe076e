"""A process for each shape: what dies, hangs or swells there is told, and the next call works."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.isolation import CallCrashedError, CallFailedError, CallLimits, IsolatedProcess
from tests.pipeline import isolated_calls


@pytest.fixture
def isolated() -> IsolatedProcess:
    return IsolatedProcess(CallLimits(timeout_s=60, memory_bytes=2 * 2**30))


def test_results_come_back_from_one_lasting_process(isolated: IsolatedProcess) -> None:
    assert isolated.call(isolated_calls.add, 2, 3) == 5
    assert isolated.call(isolated_calls.process_number) == isolated.call(isolated_calls.process_number)
    big = isolated.call(np.zeros, 3_000_000)
    assert big.shape == (3_000_000,)


def test_an_error_keeps_its_words_and_the_process(isolated: IsolatedProcess) -> None:
    before = isolated.call(isolated_calls.process_number)
    with pytest.raises(CallFailedError, match="ValueError: no inside"):
        isolated.call(isolated_calls.fail, "no inside")
    assert isolated.call(isolated_calls.process_number) == before


@pytest.mark.parametrize(
    ("call", "arguments", "reason"),
    [
        (isolated_calls.segfault, (), "segmentation fault"),
        (isolated_calls.abort, (), "aborted"),
        (isolated_calls.leave, (7,), "exit code 7"),
    ],
)
def test_a_crash_is_named_and_the_next_call_works(
    isolated: IsolatedProcess, call: object, arguments: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(CallCrashedError, match=reason):
        isolated.call(call, *arguments)  # type: ignore[arg-type]
    assert isolated.call(isolated_calls.add, 1, 1) == 2


def test_a_hang_ends_at_the_limit() -> None:
    isolated = IsolatedProcess(CallLimits(timeout_s=2.0))
    started = time.monotonic()
    with pytest.raises(CallCrashedError, match="hung: did not end within 2 s"):
        isolated.call(isolated_calls.sleep, 100.0)
    assert time.monotonic() - started < 40
    assert isolated.call(isolated_calls.sleep, 0.01) == 0.01


def test_loading_what_a_call_needs_is_not_the_calls_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_load.py").write_text(
        "import os, time\n"
        f"time.sleep(0 if os.getpid() == {os.getpid()} else 3)\n"
        "def answer():\n    return 42\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("slow_to_load")
    assert IsolatedProcess(CallLimits(timeout_s=2.0)).call(module.answer) == 42


def test_a_call_that_swells_is_ended() -> None:
    isolated = IsolatedProcess(CallLimits(memory_bytes=600 * 2**20))
    with pytest.raises(CallCrashedError, match=r"more memory than 0\.6 GiB"):
        isolated.call(isolated_calls.fill_memory, 40)


def test_a_stream_gives_its_items_as_they_come_and_the_process_lasts(isolated: IsolatedProcess) -> None:
    before = isolated.call(isolated_calls.process_number)
    assert list(isolated.stream(isolated_calls.count_to, 3)) == [1, 2, 3]
    assert list(isolated.stream(isolated_calls.count_to, 0)) == []
    assert isolated.call(isolated_calls.process_number) == before


@pytest.mark.parametrize(
    ("ending", "error", "reason"),
    [("fail", CallFailedError, "ValueError: counted too far"), ("abort", CallCrashedError, "aborted")],
)
def test_a_stream_that_ends_badly_gave_its_items_first_and_the_next_call_works(
    isolated: IsolatedProcess, ending: str, error: type[Exception], reason: str
) -> None:
    stream = isolated.stream(isolated_calls.count_to, 2, ending)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(error, match=reason):
        next(stream)
    assert isolated.call(isolated_calls.add, 1, 1) == 2


def test_what_a_stream_left_unread_does_not_answer_the_next_call(isolated: IsolatedProcess) -> None:
    stream = isolated.stream(isolated_calls.count_to, 100)
    assert next(stream) == 1
    stream.close()  # type: ignore[attr-defined]
    assert isolated.call(isolated_calls.add, 2, 2) == 4


PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let programs in the background ignore it
from pipeline.isolation import CallLimits, IsolatedProcess
from tests.pipeline import isolated_calls
process = IsolatedProcess(CallLimits())
print(process.call(isolated_calls.process_number), flush=True)
process.call(isolated_calls.sleep, 1000.0)
"""


def test_the_process_dies_with_its_parent_even_in_the_middle_of_a_call() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupt_at_the_keyboard_ends_both_as_an_interrupt() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to both
    _, errors = parent.communicate(timeout=20)
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert not psutil.pid_exists(child)
