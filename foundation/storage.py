"""Where files are kept: one interface for local folders and object stores, and the local one.

Names are relative to the storage's root, with slashes. An object store can neither rename nor append, so neither is
asked of it: a file is put whole and appears whole, or not at all.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from foundation.atomic_file import PARTIAL, appearing


class OpenedFile(Protocol):
    """Random access to the bytes of a stored file."""

    def size(self) -> int:
        """Its length in bytes."""

    def read_at(self, count: int, offset: int) -> bytes:
        """`count` bytes from `offset` on; fewer where the file ends."""

    def close(self) -> None:
        """Give it back."""


class Storage(Protocol):
    """Files under a root; picklable, so that tasks on other machines reach the same ones.

    Every method raises OSError where the storage cannot be reached or refuses.

    Attributes:
        place: the root, as a path or URL, for messages.
    """

    @property
    def place(self) -> str: ...

    def put(self, name: str, data: bytes) -> None:
        """Write a file, in place of an earlier one; it appears whole or not at all, with the folders above it."""

    def get(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError if there is none."""

    def open(self, name: str) -> OpenedFile:
        """Random access to a file; FileNotFoundError if there is none.

        Where it is replaced meanwhile, later reads may be of the new one: what is read in parts carries checksums.
        """

    def names(self, folder: str = "") -> list[str]:
        """Names of what lies in a folder, sorted, those of folders with a slash at their end.

        What is still being written is left out; a folder that is missing is empty.
        """

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def modified(self, name: str) -> float | None:
        """When a file was last put, in seconds by the storage's own clock; None if there is none."""

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and everything in it, if it exists."""


@dataclass(frozen=True)
class LocalStorage:
    """A folder of this machine, or of a file system that it has mounted; see `Storage`."""

    root: Path

    @property
    def place(self) -> str:
        """See `Storage`."""
        return str(self.root)

    def put(self, name: str, data: bytes) -> None:
        """See `Storage.put`. On the disk before it appears."""
        with appearing(self.root / name) as partial:
            partial.write_bytes(data)

    def get(self, name: str) -> bytes:
        """See `Storage.get`."""
        return (self.root / name).read_bytes()

    def open(self, name: str) -> OpenedFile:
        """See `Storage.open`."""
        return _LocalFile((self.root / name).open("rb", buffering=0))

    def names(self, folder: str = "") -> list[str]:
        """See `Storage.names`."""
        try:
            entries = list(os.scandir(self.root / folder))
        except FileNotFoundError:
            return []
        names = (entry.name + ("/" if entry.is_dir() else "") for entry in entries)
        return sorted(name for name in names if PARTIAL not in name)

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        return (self.root / name).is_file()

    def modified(self, name: str) -> float | None:
        """See `Storage.modified`."""
        try:
            return (self.root / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        (self.root / name).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        """See `Storage.delete_folder`."""
        if (self.root / folder).is_dir():
            shutil.rmtree(self.root / folder)


class _LocalFile:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def read_at(self, count: int, offset: int) -> bytes:
        self._file.seek(offset)
        pieces = []
        while count and (piece := self._file.read(count)):  # a single read stops at 2 GiB
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._file.close()
