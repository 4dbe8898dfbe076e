"""Calls in a process of their own: what crashes, hangs or eats the memory takes nothing else with it."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import psutil

from foundation.errors import TesseraError
from foundation.settings import check_at_least

Result = TypeVar("Result")

POLL_S = 0.1
START_S = 300.0  # to start and load libraries on a busy machine, which is not the call's own time
BEGUN = b""
CRASHES = {
    signal.SIGSEGV: "crashed (segmentation fault in a native library)",
    signal.SIGABRT: "crashed (a native library aborted)",
    signal.SIGBUS: "crashed (bus error in a native library)",
    signal.SIGFPE: "crashed (arithmetic error in a native library)",
    signal.SIGKILL: "was killed, probably for lack of memory",
}


class CallCrashedError(Exception):
    """The process of a call died, hung or grew too large; the message says which."""


class CallFailedError(Exception):
    """The call itself raised; the message is that of its error."""


@dataclass(frozen=True)
class CallLimits:
    """What a call may take.

    Attributes:
        timeout_s: wall-clock seconds, infinite for no limit, from where the process has loaded what the call needs.
        memory_bytes: resident memory of its process.
    """

    timeout_s: float = 600.0
    memory_bytes: int = 8 * 2**30

    def __post_init__(self) -> None:
        check_at_least(0, memory_bytes=self.memory_bytes)
        if self.timeout_s != math.inf:
            check_at_least(0, timeout_s=self.timeout_s)


class IsolatedProcess:
    """A process that makes calls one after the other; it is started anew after a crash."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run `function(*arguments)` there; both must be importable and picklable.

        Raises:
            CallCrashedError: if the process died, took too long or grew too large.
            CallFailedError: if the function raised.
        """
        self._send(function, arguments)
        return self._receive()[1]  # type: ignore[no-any-return]

    def stream(self, function: Callable[..., Iterator[Result]], *arguments: Any) -> Iterator[Result]:
        """Run a generator function there and yield its items; it makes the next while one is used here.

        The time limit holds for each item. A stream that fails or is not read to its end ends the process.

        Raises:
            CallCrashedError, CallFailedError: as `call`.
        """
        is_last = False
        try:
            self._send(function, arguments)
            while True:
                is_last, item = self._receive()
                if is_last:
                    return
                yield item
        finally:
            if not is_last:
                self.close()

    def _send(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Have a call begin."""
        connection = self._start()
        try:
            connection.send_bytes(pickle.dumps((function, arguments)))
        except OSError:
            raise self._crash() from None
        self._next_bytes(START_S)

    def _receive(self) -> tuple[bool, Any]:
        """The next answer of the running call, and whether it is the last."""
        is_last, value, reason = pickle.loads(self._next_bytes(self._limits.timeout_s))
        if reason is not None:
            raise CallFailedError(reason)
        return is_last, value

    def _next_bytes(self, timeout_s: float) -> bytes:
        process, connection = self._process, self._connection
        assert process is not None and connection is not None
        deadline = time.monotonic() + timeout_s
        watched = psutil.Process(process.pid)
        while not connection.poll(POLL_S):
            if process.poll() is not None:
                raise self._crash()
            if time.monotonic() > deadline:
                self.close()
                raise CallCrashedError(f"hung: did not end within {timeout_s:.0f} s")
            try:
                used = watched.memory_info().rss
            except psutil.Error:
                continue
            if used > self._limits.memory_bytes:
                self.close()
                raise CallCrashedError(f"needed more memory than {self._limits.memory_bytes / 2**30:.1f} GiB")
        try:
            return connection.recv_bytes()
        except (EOFError, OSError):  # it died between two answers, or in the middle of one
            raise self._crash() from None

    def _crash(self) -> CallCrashedError:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code < 0:
            return CallCrashedError(CRASHES.get(signal.Signals(-code), f"was ended by signal {-code}"))
        return CallCrashedError(f"ended unexpectedly with exit code {code}")

    def _start(self) -> Connection[Any, Any]:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        self.close()
        ours, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.isolation", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self._connection = ours
        return ours

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def __del__(self) -> None:
        self.close()


def _serve(connection: Connection[Any, Any]) -> None:
    """Make the calls that come in until the caller is gone; only the parent process can reach this pipe."""
    while True:
        try:
            function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(BEGUN)
        try:
            value = function(*arguments)
            if isinstance(value, Iterator):
                for item in value:
                    _answer(connection, False, item)
                value = None
            reason = None
        except MemoryError:
            value, reason = None, "there was not enough memory"
        except Exception as error:  # any error of a library is this call's alone
            words = str(error) or type(error).__name__
            kind = "" if isinstance(error, TesseraError) else f"{type(error).__name__}: "
            value, reason = None, f"{kind}{words}".splitlines()[0]
        _answer(connection, True, value, reason)


def _answer(connection: Connection[Any, Any], is_last: bool, value: Any, reason: str | None = None) -> None:
    connection.send_bytes(pickle.dumps((is_last, value, reason), protocol=pickle.HIGHEST_PROTOCOL))


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, even in the middle of a call."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    _die_with_parent()
    with Connection(int(sys.argv[1])) as pipe:
        _serve(pipe)
