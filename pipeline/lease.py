"""One command at a time in a directory, local or in a storage: a lease that outlives no crash, without a server."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import psutil

from foundation.storage import LocalStorage, Storage
from pipeline.errors import RunDirectoryError
from pipeline.interruption import interrupt_main

LEASE_FILE = ".lease.json"
RENEW_S = 5.0
EXPIRES_S = 30.0  # a holder that has not renewed for so long is taken for dead
SETTLE_S = 2.0  # in a storage, where all that start at once may write, and the last one has it


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


class LeaseFile(Protocol):
    """The file that a lease is, in a place that has its own way of giving it to one of several.

    Attributes:
        place: what is held, for messages.
    """

    @property
    def place(self) -> str: ...

    def read(self) -> bytes | None:
        """Its bytes; None if nobody holds it."""

    def claim(self, data: bytes) -> bool:
        """Write it if nobody holds it; whether that succeeded."""

    def renew(self, data: bytes) -> None:
        """Show that its holder is alive."""

    def age_s(self) -> float | None:
        """Seconds since it was claimed or renewed, by the clock of the place; None if nobody holds it.

        Negative where that clock was set back since.
        """

    def remove_expired(self, expired: bytes | None) -> None:
        """Remove it if these are its bytes; of several that try, one succeeds."""

    def remove(self) -> None:
        """Give it back."""


@contextmanager
def lease(place: Path | Storage) -> Iterator[None]:
    """Hold a folder, or a storage, for the duration of a block.

    The lease is a file that its holder renews. A holder that was killed is found out at once on the same machine, and
    after half a minute on another; ages are measured by the clock of the file system or storage alone.

    Raises:
        RunDirectoryError: if another command holds it, or has taken it over because this one stood still for too long.
    """
    file = _lease_file(place)
    ours = Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _start_ticks(os.getpid()))
    data = json.dumps(asdict(ours)).encode()
    _take(file, data)
    ended, lost = threading.Event(), threading.Event()
    in_main = threading.current_thread() is threading.main_thread()

    def renew() -> None:
        while not ended.wait(RENEW_S):
            with suppress(OSError):  # a file system or network that hiccups; the next time counts
                if file.read() != data:
                    lost.set()
                    if in_main:
                        interrupt_main()
                    return
                file.renew(data)

    renewer = threading.Thread(target=renew, daemon=True)
    renewer.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise RunDirectoryError(
                f"{file.place}: another command has taken it over, as this one stood still for more than "
                f"{EXPIRES_S:.0f} s"
            ) from None
        raise
    finally:
        ended.set()
        renewer.join()
        with suppress(OSError):  # it expires by itself
            if file.read() == data:
                file.remove()


def _lease_file(place: Path | Storage) -> LeaseFile:
    if isinstance(place, LocalStorage):
        place = place.root
    return _LocalLease(place / LEASE_FILE) if isinstance(place, Path) else _StoredLease(place)


def _take(file: LeaseFile, data: bytes) -> None:
    while not file.claim(data):
        held, age_s = _content(file), file.age_s()
        if age_s is None:
            continue  # it was given back meanwhile
        holder = _holder(held)
        if age_s >= EXPIRES_S or (holder is not None and holder.is_known_dead):
            file.remove_expired(held)
        elif age_s >= -RENEW_S:
            who = "" if holder is None else f" (process {holder.process} on {holder.host})"
            raise RunDirectoryError(
                f"{file.place}: another command{who} works on it and was alive {max(0, age_s):.0f} s ago; wait for it, "
                f"or end it. A dead one's hold ends after {EXPIRES_S:.0f} s"
            ) from None
        elif _stands_still(file, held):
            file.remove_expired(held)


def _stands_still(file: LeaseFile, held: bytes | None) -> bool:
    """Whether a lease whose time lies ahead, as a clock was set back since, is not renewed for as long as others last.

    Its holder, if it lives, soon gives it the present time.
    """
    until = time.monotonic() + EXPIRES_S
    while time.monotonic() < until:
        time.sleep(0.1 * RENEW_S)
        age_s = file.age_s()
        if age_s is None or age_s >= -RENEW_S or _content(file) != held:
            return False
    return True


def _content(file: LeaseFile) -> bytes | None:
    try:
        return file.read()
    except OSError:  # another user's
        return None


def _holder(data: bytes | None) -> Holder | None:
    """Who wrote a lease; None where that cannot be read, or was cut short."""
    try:
        return Holder(**json.loads(data or b""))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True)
class _LocalLease:
    """Claimed by creating the file, which of several succeeds for one."""

    path: Path

    @property
    def place(self) -> str:
        return str(self.path.parent)

    def read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def claim(self, data: bytes) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def renew(self, data: bytes) -> None:
        os.utime(self.path)

    def age_s(self) -> float | None:
        touched = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        touched.touch()
        try:
            return touched.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            touched.unlink()

    def remove_expired(self, expired: bytes | None) -> None:
        # Nobody may take away what another has claimed since: one at a time looks and removes.
        turn = self.path.with_name(f"{self.path.name}.turn")
        try:
            turn.open("x").close()
        except FileExistsError:
            age_s = _LocalLease(turn).age_s()
            if age_s is not None and abs(age_s) > EXPIRES_S:  # its owner died in between
                turn.unlink(missing_ok=True)
            time.sleep(0.01)
            return
        try:
            if _content(self) == expired:
                self.path.unlink(missing_ok=True)
        finally:
            turn.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _StoredLease:
    """Claimed by putting the file and reading it back when others who started at once have put theirs.

    A storage may have no way to create what must not exist. One whose put takes longer than the others wait may win
    over one that holds already, who learns that when it renews: both then work for some seconds, on the same files of
    the same content.
    """

    storage: Storage

    @property
    def place(self) -> str:
        return self.storage.place

    def read(self) -> bytes | None:
        try:
            return self.storage.get(LEASE_FILE)
        except FileNotFoundError:
            return None

    def claim(self, data: bytes) -> bool:
        if self.storage.exists(LEASE_FILE):
            return False
        self.storage.put(LEASE_FILE, data)
        time.sleep(SETTLE_S)
        return self.read() == data

    def renew(self, data: bytes) -> None:
        self.storage.put(LEASE_FILE, data)

    def age_s(self) -> float | None:
        probe = f"{LEASE_FILE}.{uuid.uuid4().hex}"
        self.storage.put(probe, b"")
        try:
            now, renewed = self.storage.modified(probe), self.storage.modified(LEASE_FILE)
        finally:
            self.storage.delete(probe)
        return None if now is None or renewed is None else now - renewed

    def remove_expired(self, expired: bytes | None) -> None:
        if self.read() == expired:
            self.storage.delete(LEASE_FILE)

    def remove(self) -> None:
        self.storage.delete(LEASE_FILE)
