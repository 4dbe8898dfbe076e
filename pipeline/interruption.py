"""Signals that end a command: the first one in order, with an exit code of its own, a second one at once."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

import psutil

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERNAL = signal.SIGUSR1  # stands for an interruption that comes from a thread of this process
SAME_S = (
    0.5  # wrappers pass a signal on that the terminal has sent as well: so soon after, it is the same one
)


_at_work: list[Interruption] = []
_stderr = [2]  # descriptors; the last one is where a line reaches the user


class Interruption:
    """Context of a command in the main thread: a signal that ends it becomes a `KeyboardInterrupt`.

    A second one does not wait for what the first has begun, nor for native code: it kills the processes that this one
    has started, and this one. Signals that the caller has had ignored, as `nohup` does, stay ignored.

    Attributes:
        received: the signal from outside that came first; None while there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._is_held = False
        self._waits = False

    def __enter__(self) -> Interruption:
        self._before: dict[int, Any] = {}
        _at_work.append(self)
        if threading.current_thread() is not threading.main_thread():
            return self
        self._listening, ours = socket.socketpair()
        ours.setblocking(False)
        self._speaking = ours
        self._wakeup_before = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        for number in (*ENDING, INTERNAL):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        threading.Thread(target=self._end_at_second, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        _at_work.remove(self)
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._speaking.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if number == INTERNAL or self.received is None:
            self.received = self.received if number == INTERNAL else number
            if not self._is_held:
                raise KeyboardInterrupt
            self._waits = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """For a block that must not break off in the middle: the `KeyboardInterrupt` comes at its end."""
        self._is_held, self._waits = True, False
        try:
            yield
        finally:
            self._is_held = False
        if self._waits:
            raise KeyboardInterrupt

    def _end_at_second(self) -> None:
        """Runs in a thread, which sees signals that Python would serve only when native code returns."""
        first: float | None = None
        while numbers := self._listening.recv(1):
            if numbers[0] not in ENDING:
                continue
            if first is None:
                first = time.monotonic()
            elif time.monotonic() - first > SAME_S:
                _end_now(numbers[0])
        self._listening.close()


def _end_now(number: int) -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    with suppress(OSError):
        os.write(_stderr[-1], b"tessera: ended at once; run the same command again to continue\n")
    os._exit(exit_code(number))


@contextmanager
def speaking_through(descriptor: int) -> Iterator[None]:
    """While stderr leads nowhere: the last words of a command that is ended at once go to this descriptor."""
    _stderr.append(descriptor)
    try:
        yield
    finally:
        _stderr.remove(descriptor)


def check_interrupted() -> None:
    """Raise the `KeyboardInterrupt` of a signal again, between two pieces of work.

    Where it arrived in a callback or in an import that forgives every error, Python has dropped it.
    """
    if _at_work and _at_work[-1].received is not None:
        raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that a signal to the command at work does not break off in the middle; a second one does."""
    with _at_work[-1].held() if _at_work else nullcontext():
        yield


def interrupt_main() -> None:
    """Raise a `KeyboardInterrupt` in the main thread, from another one."""
    is_ours = callable(signal.getsignal(INTERNAL))
    _thread.interrupt_main(INTERNAL if is_ours else signal.SIGINT)


def exit_code(number: int) -> int:
    """Of a command that a signal has ended, as shells report it."""
    return 128 + number


def describe(number: int) -> str:
    """One line for whoever reads what a command printed."""
    cause = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{cause}; run the same command again to continue"
