"""PCD (Point Cloud Library) files: ASCII, binary, and binary_compressed with its LZF coding."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, are_normals, columns_to_chunk
from preprocessing.scan_files.colors import (
    BYTES,
    SAMPLE_BLOCKS,
    SAMPLE_ROWS,
    ColorScale,
    decide_scale,
    declared_by,
    packed_column,
    sample_starts,
    unpacked,
)
from preprocessing.scan_files.lzf import LARGEST_RATIO, lzf_stream
from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES, column_roles
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import check_row, open_bytes, rows_at_once, size_in_bytes, truncated
from preprocessing.scan_files.tables import Column, binary_rows, text_rows

LONGEST_HEADER = 1 << 14
_HEADER_WORDS = {
    "VERSION",
    "FIELDS",
    "COLUMNS",
    "SIZE",
    "TYPE",
    "COUNT",
    "WIDTH",
    "HEIGHT",
    "VIEWPOINT",
    "POINTS",
    "DATA",
}


@dataclass(frozen=True)
class _Header:
    """Parsed PCD header."""

    columns: list[Column]
    points: int
    data: str
    data_start: int

    @property
    def row_bytes(self) -> int:
        """Size of a binary row."""
        return sum(column.count * np.dtype(column.kind).itemsize for column in self.columns)


def _parse_header(path: Path) -> _Header:
    words: dict[str, list[str]] = {}
    with open_bytes(path) as file:
        while "DATA" not in words:
            raw = file.readline(4096)
            if not raw or file.tell() > LONGEST_HEADER:
                raise ScanError(
                    f"{path}: the PCD header does not end; it is truncated or no PCD file, copy or export it again"
                )
            parts = raw.decode("latin-1").split()
            if parts and not parts[0].startswith("#") and parts[0].upper() in _HEADER_WORDS:
                words[parts[0].upper()] = parts[1:]
        start = file.tell()
    try:
        names = words["FIELDS"] if "FIELDS" in words else words["COLUMNS"]
        counts = [int(value) for value in words.get("COUNT", ["1"] * len(names))]
        sizes = words.get("SIZE", ["4"] * len(names))
        types = words.get("TYPE", ["F"] * len(names))
        kinds = [
            np.dtype("<" + {"F": "f", "I": "i", "U": "u"}[kind.upper()] + size).str
            for kind, size in zip(types, sizes, strict=True)
        ]
        points = (
            int(words["POINTS"][0])
            if "POINTS" in words
            else int(words["WIDTH"][0]) * int(words.get("HEIGHT", ["1"])[0])
        )
        columns = [Column(n, k, c) for n, k, c in zip(names, kinds, counts, strict=True)]
        data = words["DATA"][0].lower()
        if points < 0 or min(counts) < 1:
            raise ValueError(f"{points} points, counts {counts}")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ScanError(f"{path}: damaged PCD header ({error}); copy or export it again") from error
    if data not in ("ascii", "binary", "binary_compressed"):
        raise ScanError(
            f"{path}: unknown PCD data kind {data!r}; save it as ascii, binary or binary_compressed"
        )
    header = _Header(columns, points, data, start)
    check_row(path, header.row_bytes)
    return header


@dataclass(frozen=True)
class _Layout:
    """What is read of a PCD file: columns by role, the packed colors' column if any, and the colors' scale."""

    header: _Header
    roles: dict[str, int]
    packed: int | None
    scale: ColorScale | None = None

    def named(self, table: Mapping[int, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Columns of a block by role."""
        named = {role: _first(table[place]) for role, place in self.roles.items() if place in table}
        if self.packed is not None and self.packed in table:
            named |= unpacked(_first(table[self.packed]), self.header.columns[self.packed].kind)
        return named


def _first(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, 0] if values.ndim == 2 else values


def open_pcd(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open a PCD point cloud; see `open_scan`. Compressed ones are expanded into a temporary file."""
    header = _parse_header(path)
    size = size_in_bytes(path)
    if header.data == "binary" and size is not None:
        present = (size - header.data_start) // header.row_bytes
        if present < header.points:
            raise truncated(path, header.points, present)
    names = [column.name for column in header.columns]
    roles = column_roles(names)
    if not all(axis in roles for axis in AXES):
        raise ScanError(
            f"{path}: the points have no x, y and z, but {', '.join(names)}; export it as a plain point cloud"
        )
    packed_name = packed_column({column.name: column.kind for column in header.columns if column.count == 1})
    packed = None if packed_name is None else names.index(packed_name)
    if packed is not None:
        roles = {role: place for role, place in roles.items() if role not in COLOR_NAMES}
    layout = _Layout(header, roles, packed)
    sample = layout.named(_sample(path, layout))
    if not are_normals(sample):
        roles = {role: place for role, place in roles.items() if role not in NORMAL_NAMES}
    scale = None
    if COLOR_NAMES[0] in sample:
        channels = [sample[name] for name in COLOR_NAMES]
        declared: str | None = "u1"
        if packed is None:
            fractional = any((channel % 1 != 0).any() for channel in channels)
            kinds = (header.columns[roles[name]].kind for name in COLOR_NAMES)
            declared = None if fractional else declared_by(kinds)
        scale = decide_scale(channels, declared)
        assert packed is None or scale in (None, BYTES)
    layout = _Layout(header, roles, packed if scale is not None else None, scale)
    columns = {
        role: names[place] for role, place in roles.items() if scale is not None or role not in COLOR_NAMES
    }
    if layout.packed is not None:
        columns |= dict.fromkeys(COLOR_NAMES, names[layout.packed])
    return ScanReader(
        path,
        "PCD",
        header.points,
        lambda: _chunks(path, layout, chunk_points),
        has_normals=NORMAL_NAMES[0] in roles,
        has_colors=scale is not None,
        columns=columns,
    )


def _sample(path: Path, layout: _Layout) -> dict[int, NDArray[Any]]:
    """Values of the colors and normals from all over the file; from its beginning where rows cannot be found."""
    header = layout.header
    places = [place for role, place in layout.roles.items() if role not in AXES]
    places += [] if layout.packed is None else [layout.packed]
    if not places or not header.points:
        return {}
    parts: list[dict[int, NDArray[Any]]] = []
    if header.data == "binary" and size_in_bytes(path) is not None:
        with path.open("rb") as file:
            for start in sample_starts(header.points):
                file.seek(header.data_start + start * header.row_bytes)
                count = min(SAMPLE_ROWS, header.points - start)
                parts.extend(binary_rows(path, file, header.columns, count, count))
    elif header.data == "binary_compressed":
        parts.extend(_expanded(path, header, SAMPLE_ROWS, sample_starts(header.points)))
    else:
        rows = _tables(path, header, SAMPLE_ROWS)
        done = 0
        while done < min(header.points, SAMPLE_BLOCKS * SAMPLE_ROWS):
            parts.append(next(rows))
            done += len(parts[-1][places[0]])
    return {place: np.concatenate([_first(part[place]) for part in parts]) for place in places}


def _tables(path: Path, header: _Header, chunk_points: int) -> Iterator[dict[int, NDArray[Any]]]:
    if header.data == "binary_compressed":
        rows = rows_at_once(header.row_bytes, chunk_points)
        yield from _expanded(path, header, rows, range(0, header.points, rows))
        return
    with open_bytes(path) as file:
        file.read(header.data_start)
        if header.data == "binary":
            yield from binary_rows(path, file, header.columns, header.points, chunk_points)
        else:
            yield from text_rows(path, file, header.columns, header.points, chunk_points)


def _chunks(path: Path, layout: _Layout, chunk_points: int) -> Iterator[ScanChunk]:
    for table in _tables(path, layout.header, chunk_points):
        yield columns_to_chunk(layout.named(table), layout.scale)


def _expanded(
    path: Path, header: _Header, rows: int, starts: list[int] | range
) -> Iterator[dict[int, NDArray[Any]]]:
    """Blocks of a compressed file. It holds all values of one field, then all of the next, so it is expanded into
    a temporary file and read at as many places as there are fields."""
    with open_bytes(path) as file, tempfile.TemporaryFile() as scratch:
        file.read(header.data_start)
        _expand(path, header, file, scratch)
        for start in starts:
            count = min(rows, header.points - start)
            table: dict[int, NDArray[Any]] = {}
            offset = 0
            for number, column in enumerate(header.columns):
                width = column.count * np.dtype(column.kind).itemsize
                scratch.seek(offset + start * width)
                values = np.frombuffer(scratch.read(count * width), column.kind)
                table[number] = values.reshape(count, column.count) if column.count > 1 else values
                offset += header.points * width
            yield table


def _expand(path: Path, header: _Header, file: BinaryIO, scratch: IO[bytes]) -> None:
    sizes = file.read(8)
    if len(sizes) < 8:
        raise ScanError(f"{path}: is truncated before its data; copy or export it again")
    packed, size = struct.unpack("<II", sizes)
    whole = size_in_bytes(path)
    present = packed if whole is None else whole - header.data_start - 8
    if size != header.points * header.row_bytes:
        raise ScanError(
            f"{path}: its {header.points:,} points take {header.points * header.row_bytes:,} bytes, its compressed "
            f"data {size:,}; the header is damaged, export it again"
        )
    if present < packed:
        raise ScanError(
            f"{path}: is truncated: {present:,} of {packed:,} bytes of data; copy or export it again"
        )
    if size > LARGEST_RATIO * packed:
        raise ScanError(
            f"{path}: {packed:,} bytes cannot expand to the {size:,} that its header claims; export it again"
        )
    try:
        for part in lzf_stream(file, packed, size):
            scratch.write(part)
    except ValueError as error:
        raise ScanError(
            f"{path}: the compressed data is damaged ({error}); copy or export it again"
        ) from error
