"""Failures of the file system in the user's words: the file, the reason, the cure."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import wraps
from typing import Protocol, TypeVar

from pipeline.errors import RunDirectoryError

IS_FULL = "free some space"
CURES = {
    errno.ENOSPC: IS_FULL,
    errno.EDQUOT: IS_FULL,
    errno.EROFS: "make the file system writable",
    errno.EACCES: "see to its permissions",
    errno.EIO: "see to the disk",
}


def reason_and_cure(error: OSError) -> tuple[str, str]:
    """Why an operation on a file failed, and what to do, both without the file's name; the cure may be empty."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    cure = CURES.get(error.errno or 0, "")
    return reason, cure and f"{cure}, then run the same command again"


def in_words(error: OSError, place: str = "") -> str:
    """One line.

    Args:
        error: what was raised.
        place: the file, where the error does not name it.
    """
    reason, cure = reason_and_cure(error)
    place = str(error.filename or place)
    return (f"{place}: " if place else "") + reason + (f"; {cure}" if cure else "")


class _Store(Protocol):
    @property
    def url(self) -> str: ...


Store = TypeVar("Store", bound=_Store)


def naming_its_file(write: Callable[[Store, str, bytes], None]) -> Callable[[Store, str, bytes], None]:
    """A method of a store that writes a file: what Arrow says of a failure is put in words, with the file's name."""

    @wraps(write)
    def named(store: Store, name: str, data: bytes) -> None:
        try:
            write(store, name, data)
        except OSError as error:
            reason, cure = reason_and_cure(error)
            end = f"; finished files are kept: {cure}" if cure else ""
            raise RunDirectoryError(f"{store.url}/{name}: cannot be written ({reason}){end}") from error

    return named
