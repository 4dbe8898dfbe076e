"""The run directory: Parquet tables and JSON on any pyarrow filesystem, each appearing whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.fs as fs

from pipeline.errors import RunDirectoryError, RunFileError
from pipeline.reconstruction.sealed_tables import Columns, SealedTable, sealed
from pipeline.write_errors import reason_and_cure


@dataclass(frozen=True)
class RunStore:
    """A run directory at a local path or a filesystem URL such as `s3://bucket/run`.

    Attributes:
        url: where it is.
        identity: of the run; tables carry it, and those of another run are not believed.

    Layout: `manifest.json`; `points/chunk-NNNNNN.parquet` and `points/index.parquet`;
    `fields/tile-NNNNNNNN.parquet` (removed after the surface); `tiles/NNNNNNNN.vertices.parquet` and
    `tiles/NNNNNNNN.faces.parquet`; `mesh.ply`; `report.json`.
    """

    url: str
    identity: str = ""

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        if "://" in self.url:
            filesystem, root = fs.FileSystem.from_uri(self.url)
            return filesystem, root.rstrip("/")
        return fs.LocalFileSystem(), str(Path(self.url).absolute())

    @property
    def is_local(self) -> bool:
        """Whether the directory is on this machine's filesystem."""
        return isinstance(self._place[0], fs.LocalFileSystem)

    @property
    def local_path(self) -> Path:
        """The directory as a path; only where `is_local`."""
        assert self.is_local
        return Path(self._place[1])

    def _full(self, name: str) -> str:
        return f"{self._place[1]}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a finished file of this name is there."""
        return bool(self._place[0].get_file_info(self._full(name)).type == fs.FileType.File)

    def names(self, folder: str) -> list[str]:
        """Finished files of a folder, sorted; empty where the folder is missing."""
        selector = fs.FileSelector(self._full(folder), allow_not_found=True)
        entries = self._place[0].get_file_info(selector)
        return sorted(
            entry.base_name
            for entry in entries
            if entry.type == fs.FileType.File and not _is_stray(entry.base_name)
        )

    def entries(self) -> list[str]:
        """Names of what lies in the directory itself, hidden and partial files aside; none where it is missing."""
        selector = fs.FileSelector(self._place[1], allow_not_found=True)
        names = [entry.base_name for entry in self._place[0].get_file_info(selector)]
        return sorted(name for name in names if not _is_stray(name))

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""
        if self.exists(name):
            self._place[0].delete_file(self._full(name))

    def delete_folder(self, name: str) -> None:
        """Remove a folder and what is in it, if it exists."""
        if self._place[0].get_file_info(self._full(name)).type == fs.FileType.Directory:
            self._place[0].delete_dir(self._full(name))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file that appears whole: to a partial name first, then moved.

        Raises:
            RunDirectoryError: if it cannot be written; names the file and the cure.
        """
        try:
            self._write(name, data)
        except OSError as error:
            reason, cure = reason_and_cure(error)
            end = f"; finished files are kept: {cure}" if cure else ""
            raise RunDirectoryError(f"{self.url}/{name}: cannot be written ({reason}){end}") from error

    def _write(self, name: str, data: bytes) -> None:
        filesystem, _ = self._place
        full = self._full(name)
        filesystem.create_dir(full.rsplit("/", 1)[0], recursive=True)
        partial = f"{full}.partial-{uuid.uuid4().hex}"
        try:
            with filesystem.open_output_stream(partial) as stream:
                stream.write(data)
            if self.is_local:
                _sync(partial)
            filesystem.move(partial, full)
        except BaseException:
            if filesystem.get_file_info(partial).type == fs.FileType.File:
                filesystem.delete_file(partial)
            raise

    def read_bytes(self, name: str) -> bytes:
        """Contents of a file."""
        with self._place[0].open_input_stream(self._full(name)) as stream:
            return bytes(stream.read())

    def write_table(self, name: str, groups: Sequence[Columns], facts: dict[str, Any] | None = None) -> None:
        """Write row groups of the same columns as a sealed Parquet file, with JSON facts in its footer."""
        self.write_bytes(name, sealed(groups, facts or {}, self.identity, name))

    def open_table(self, name: str) -> SealedTable:
        """Open a sealed Parquet file of this run.

        Raises:
            RunFileError: if it is missing, damaged or of another run.
        """
        try:
            file = self._place[0].open_input_file(self._full(name))
        except FileNotFoundError:
            raise RunFileError(self.url, name, "is missing") from None
        return SealedTable(file, self.url, name, self.identity)

    def read_facts(self, name: str) -> dict[str, Any]:
        """The JSON facts in a sealed file's footer; raises as `open_table`."""
        with self.open_table(name) as file:
            return file.facts


def _is_stray(name: str) -> bool:
    """Whether a name is none of ours: left half-written by a killed process, or hidden, as what other systems leave."""
    return ".partial-" in name or name.startswith(".")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
