"""The run directory: Parquet tables and JSON on any pyarrow filesystem, each appearing whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq


@dataclass(frozen=True)
class RunStore:
    """A run directory at a local path or a filesystem URL such as `s3://bucket/run`.

    Layout: `manifest.json`; `points/chunk-NNNNNN.parquet` and `points/index.parquet`;
    `fields/tile-NNNNNNNN.parquet` (removed after the surface); `tiles/NNNNNNNN.vertices.parquet` and
    `tiles/NNNNNNNN.faces.parquet`; `mesh.ply`; `report.json`.
    """

    url: str

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
            if entry.type == fs.FileType.File and not _is_partial(entry.base_name)
        )

    def is_empty(self) -> bool:
        """Whether nothing at all lies in the directory, or it does not exist."""
        selector = fs.FileSelector(self._place[1], allow_not_found=True)
        return not self._place[0].get_file_info(selector)

    def delete_folder(self, name: str) -> None:
        """Remove a folder and what is in it, if it exists."""
        if self._place[0].get_file_info(self._full(name)).type == fs.FileType.Directory:
            self._place[0].delete_dir(self._full(name))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file that appears whole: to a partial name first, then moved."""
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

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON."""
        self.write_bytes(name, json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """Read JSON."""
        return json.loads(self.read_bytes(name))

    def write_tables(self, name: str, tables: list[pa.Table], facts: dict[str, Any] | None = None) -> None:
        """Write tables of one schema as the row groups of a Parquet file, with JSON facts in its footer."""
        schema = tables[0].schema.with_metadata({"tessera": json.dumps(facts or {})})
        buffer = pa.BufferOutputStream()
        with pq.ParquetWriter(
            buffer, schema, compression="zstd", compression_level=1, use_dictionary=False
        ) as writer:
            for table in tables:
                writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
        self.write_bytes(name, buffer.getvalue().to_pybytes())

    def open_table(self, name: str) -> pq.ParquetFile:
        """Open a Parquet file for reading row groups."""
        return pq.ParquetFile(self._place[0].open_input_file(self._full(name)))

    def read_facts(self, name: str) -> dict[str, Any]:
        """The JSON facts in a Parquet file's footer."""
        with self.open_table(name) as file:
            return self.facts_of(file)

    @staticmethod
    def facts_of(file: pq.ParquetFile) -> dict[str, Any]:
        """The JSON facts in the footer of an open Parquet file."""
        facts: dict[str, Any] = json.loads(file.schema_arrow.metadata[b"tessera"])
        return facts


def _is_partial(name: str) -> bool:
    return ".partial-" in name


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
