"""The run directory: Parquet tables and JSON in a storage, each appearing whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foundation.storage import LocalStorage, Storage
from pipeline.errors import RunDirectoryError, RunFileError
from pipeline.filesystem_storage import open_storage
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
    def storage(self) -> Storage:
        """Where its files are kept."""
        return open_storage(self.url)

    @property
    def local_folder(self) -> Path | None:
        """The directory as a path of this machine; None where it is elsewhere."""
        return self.storage.root if isinstance(self.storage, LocalStorage) else None

    def exists(self, name: str) -> bool:
        """Whether a finished file of this name is there."""
        return self.storage.exists(name)

    def names(self, folder: str) -> list[str]:
        """Finished files of a folder, sorted, without hidden ones; empty where the folder is missing."""
        return [name for name in self.storage.names(folder) if name[-1] != "/" and name[0] != "."]

    def entries(self) -> list[str]:
        """Names of what lies in the directory itself, but for what other systems leave hidden there."""
        return [name.rstrip("/") for name in self.storage.names() if name[0] != "."]

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""
        self.storage.delete(name)

    def delete_folder(self, name: str) -> None:
        """Remove a folder and what is in it, if it exists."""
        self.storage.delete_folder(name)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file that appears whole.

        Raises:
            RunDirectoryError: if it cannot be written; names the file and the cure.
        """
        try:
            self.storage.put(name, data)
        except OSError as error:
            reason, cure = reason_and_cure(error)
            end = f"; finished files are kept: {cure}" if cure else ""
            raise RunDirectoryError(f"{self.url}/{name}: cannot be written ({reason}){end}") from error

    def read_bytes(self, name: str) -> bytes:
        """Contents of a file; FileNotFoundError if there is none."""
        return self.storage.get(name)

    def write_table(self, name: str, groups: Sequence[Columns], facts: dict[str, Any] | None = None) -> None:
        """Write row groups of the same columns as a sealed Parquet file, with JSON facts in its footer."""
        self.write_bytes(name, sealed(groups, facts or {}, self.identity, name))

    def open_table(self, name: str) -> SealedTable:
        """Open a sealed Parquet file of this run.

        Raises:
            RunFileError: if it is missing, damaged or of another run.
        """
        try:
            file = self.storage.open(name)
        except FileNotFoundError:
            raise RunFileError(self.url, name, "is missing") from None
        try:
            return SealedTable(file, self.url, name, self.identity)
        except BaseException:
            file.close()
            raise

    def read_facts(self, name: str) -> dict[str, Any]:
        """The JSON facts in a sealed file's footer; raises as `open_table`."""
        with self.open_table(name) as file:
            return file.facts
