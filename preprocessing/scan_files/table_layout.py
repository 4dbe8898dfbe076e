"""Which columns of a table that a header describes are what, and how that makes a reader: PLY and PCD alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk, decided_roles
from preprocessing.scan_files.colors import (
    SAMPLE_BLOCKS,
    SAMPLE_ROWS,
    ColorScale,
    declared_by,
    sample_starts,
    unpacked,
)
from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES
from preprocessing.scan_files.tables import Column, binary_rows, row_bytes

Table = Mapping[int, NDArray[Any]]


@dataclass(frozen=True)
class TableLayout:
    """Columns by role, the column that packs all colors if there is one, and the colors' scale."""

    columns: Sequence[Column]
    roles: dict[str, int]
    packed: int | None = None
    scale: ColorScale | None = None

    @property
    def has_more(self) -> bool:
        """Whether there is more than x, y and z: colors or normals, which a sample of the file decides about."""
        return self.packed is not None or not self.roles.keys() <= set(AXES)

    def named(self, table: Table) -> dict[str, NDArray[Any]]:
        """Columns of a block by role."""
        named = {role: _first(table[place]) for role, place in self.roles.items()}
        if self.packed is not None:
            named |= unpacked(_first(table[self.packed]), self.columns[self.packed].kind)
        return named

    def decided(self, sample: Sequence[Table]) -> TableLayout:
        """With the scale of the colors, and without normals or packed colors that are none."""
        named = [self.named(part) for part in sample]
        values = {
            role: np.concatenate([part[role] for part in named])
            for role in (named[0] if named else ())
            if role not in AXES
        }
        declared: str | None = "u1"
        if self.packed is None and COLOR_NAMES[0] in values:
            fractional = any((values[name] % 1 != 0).any() for name in COLOR_NAMES)
            kinds = (self.columns[self.roles[name]].kind for name in COLOR_NAMES)
            declared = None if fractional else declared_by(kinds)
        roles, scale = decided_roles(self.roles, values, declared)
        return replace(self, roles=roles, packed=None if scale is None else self.packed, scale=scale)

    def reader(self, path: Path, kind: str, count: int, tables: Callable[[], Iterator[Table]]) -> ScanReader:
        """The reader of `count` points of a file, whose blocks `tables` reads from the beginning."""

        def chunks() -> Iterator[ScanChunk]:
            for table in tables():
                yield columns_to_chunk(self.named(table), self.scale)

        labels = {role: self.columns[place].name for role, place in self.roles.items()}
        if self.packed is not None:
            labels |= dict.fromkeys(COLOR_NAMES, self.columns[self.packed].name)
        return ScanReader(
            path,
            kind,
            count,
            chunks,
            has_normals=NORMAL_NAMES[0] in self.roles,
            has_colors=self.scale is not None,
            columns=labels,
        )


def _first(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, 0] if values.ndim == 2 else values


def rows_all_over(path: Path, columns: Sequence[Column], count: int, data_start: int) -> Iterator[Table]:
    """A sample of `count` binary rows of one size, from all over a plain file."""
    with path.open("rb") as file:
        for start in sample_starts(count):
            file.seek(data_start + start * (row_bytes(columns) or 0))
            rows = min(SAMPLE_ROWS, count - start)
            yield from binary_rows(path, file, columns, rows, rows)


def first_rows(tables: Iterator[Table], count: int) -> Iterator[Table]:
    """A sample of `count` rows from the beginning, where rows cannot be found all over."""
    done = 0
    while done < min(count, SAMPLE_BLOCKS * SAMPLE_ROWS):
        table = next(tables)
        done += len(next(iter(table.values())))
        yield table
