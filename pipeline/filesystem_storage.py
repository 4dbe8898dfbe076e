"""Storage at a URL: any filesystem of pyarrow, such as an S3-compatible server."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs

from foundation.atomic_file import PARTIAL
from foundation.local_paths import url_in
from foundation.storage import LocalStorage, OpenedFile, Storage
from pipeline.errors import RunDirectoryError

APPEAR_WHEN_CLOSED = (
    "s3",
)  # filesystems, by pyarrow's names, whose files nobody sees before they are finished


def open_storage(place: Path | str) -> Storage:
    """The storage at a local path or a URL of a filesystem that pyarrow knows.

    Raises:
        RunDirectoryError: if the URL is of no such filesystem, or cannot be read.
    """
    url = url_in(place)
    if url is None:
        return LocalStorage(Path(place).absolute())
    storage = FilesystemStorage(url)
    if isinstance(storage.filesystem, fs.LocalFileSystem):
        return LocalStorage(Path(storage.root))
    return storage


@dataclass(frozen=True)
class FilesystemStorage:
    """What lies below a URL of a filesystem of pyarrow; see `Storage`."""

    url: str

    @property
    def place(self) -> str:
        """See `Storage`."""
        return self.url

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        try:
            filesystem, root = fs.FileSystem.from_uri(self.url)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise RunDirectoryError(
                f"{self.url}: cannot be used ({reason}); pass a local path, or a URL such as s3://bucket/folder"
            ) from error
        return filesystem, root.rstrip("/")

    @property
    def filesystem(self) -> fs.FileSystem:
        """Of the URL."""
        return self._opened[0]

    @property
    def root(self) -> str:
        """The path below which everything lies, in the words of that filesystem."""
        return self._opened[1]

    def _full(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def put(self, name: str, data: bytes) -> None:
        """See `Storage.put`."""
        full = self._full(name)
        if self.filesystem.type_name in APPEAR_WHEN_CLOSED:
            # Closing publishes what was written, so that an interruption must not come between: in a thread none does.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._write, full, data).result()
            return
        self.filesystem.create_dir(full.rpartition("/")[0], recursive=True)
        partial = f"{full}{PARTIAL}{uuid.uuid4().hex}"
        try:
            self._write(partial, data)
            self.filesystem.move(partial, full)
        except BaseException:
            self._delete(partial)
            raise

    def _write(self, full: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(full) as stream:
            stream.write(data)

    def get(self, name: str) -> bytes:
        """See `Storage.get`."""
        full = self._full(name)
        while True:
            with self.filesystem.open_input_file(full) as file:
                data = bytes(
                    file.read_at(file.size(), 0)
                )  # in one request, as a stream would mix two versions
            if self.filesystem.get_file_info(full).size in (len(data), None):
                return data  # else it was replaced between the question for its size and the answer

    def open(self, name: str) -> OpenedFile:
        """See `Storage.open`."""
        file: OpenedFile = self.filesystem.open_input_file(self._full(name))
        return file

    def names(self, folder: str = "") -> list[str]:
        """See `Storage.names`."""
        selector = fs.FileSelector(self._full(folder), allow_not_found=True)
        entries = self.filesystem.get_file_info(selector)
        names = (entry.base_name + "/" * (entry.type == fs.FileType.Directory) for entry in entries)
        return sorted(name for name in names if PARTIAL not in name)

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        return bool(self._type(self._full(name)) == fs.FileType.File)

    def modified(self, name: str) -> float | None:
        """See `Storage.modified`."""
        info = self.filesystem.get_file_info(self._full(name))
        return info.mtime.timestamp() if info.type == fs.FileType.File else None

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._delete(self._full(name))

    def _delete(self, full: str) -> None:
        if self._type(full) == fs.FileType.File:
            self.filesystem.delete_file(full)

    def delete_folder(self, folder: str) -> None:
        """See `Storage.delete_folder`."""
        if self._type(self._full(folder)) == fs.FileType.Directory:
            self.filesystem.delete_dir(self._full(folder))

    def _type(self, full: str) -> fs.FileType:
        return self.filesystem.get_file_info(full).type
