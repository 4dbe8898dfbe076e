"""One command at a time in a directory: a lease that outlives no crash and needs no lock server."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.errors import RunDirectoryError
from pipeline.interruption import interrupt_main

LEASE_FILE = ".lease.json"
RENEW_S = 5.0
EXPIRES_S = 30.0  # a holder that has not renewed for so long is taken for dead


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes:
        identity: of this lease, drawn at random.
        host, process: where the command runs.
        started: when that process did, in ticks since its machine was switched on, which no change of the clock
            moves; tells it from a later one of its number. 0 where the system does not say.
    """

    identity: str
    host: str
    process: int
    started: int

    @property
    def is_known_dead(self) -> bool:
        """Whether it ran on this machine and does not any more."""
        if self.host != socket.gethostname():
            return False
        return not psutil.pid_exists(self.process) or _start_ticks(self.process) != self.started


def _start_ticks(process: int) -> int:
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(words[19])  # the 22nd field, of which the name, in parentheses, is the second


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold a folder for the duration of a block.

    The lease is a file that its holder renews. A holder that was killed is found out at once on the same machine, and
    after half a minute on another; ages are measured by the clock of the file system alone.

    Raises:
        RunDirectoryError: if another command holds it, or has taken it over because this one stood still for too long.
    """
    path = folder / LEASE_FILE
    ours = Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _start_ticks(os.getpid()))
    _take(path, ours)
    ended, lost = threading.Event(), threading.Event()
    in_main = threading.current_thread() is threading.main_thread()

    def renew() -> None:
        while not ended.wait(RENEW_S):
            if _read(path) != ours:
                lost.set()
                if in_main:
                    interrupt_main()
                return
            with suppress(OSError):  # a file system that hiccups; the next time counts
                os.utime(path)

    renewer = threading.Thread(target=renew, daemon=True)
    renewer.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise RunDirectoryError(
                f"{folder}: another command has taken it over, as this one stood still for more than {EXPIRES_S:.0f} s"
            ) from None
        raise
    finally:
        ended.set()
        renewer.join()
        if _read(path) == ours:
            path.unlink(missing_ok=True)


def _take(path: Path, ours: Holder) -> None:
    while True:
        try:
            with path.open("x") as file:
                json.dump(asdict(ours), file)
            return
        except FileExistsError:
            holder, age_s = _read(path), _age_s(path)
            if age_s is None:
                continue  # it was given back meanwhile
            if age_s < EXPIRES_S and not (holder is not None and holder.is_known_dead):
                who = "" if holder is None else f" (process {holder.process} on {holder.host})"
                raise RunDirectoryError(
                    f"{path.parent}: another command{who} works on it and was alive {age_s:.0f} s ago; wait for it, or "
                    f"end it. A dead one's hold ends after {EXPIRES_S:.0f} s"
                ) from None
            _put_aside(path, holder)


def _put_aside(path: Path, expired: Holder | None) -> None:
    """Remove an expired lease; of several that try, one succeeds, and a lease taken meanwhile comes back."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside) != expired:
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _read(path: Path) -> Holder | None:
    """The holder; None where there is no lease, or one that was cut short."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _age_s(path: Path) -> float | None:
    """Seconds since a lease was renewed; None if it is gone."""
    touched = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    touched.touch()
    try:
        return max(0.0, touched.stat().st_mtime - path.stat().st_mtime)
    except FileNotFoundError:
        return None
    finally:
        touched.unlink()
