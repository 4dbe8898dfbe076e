"""PCD (Point Cloud Library) files: ASCII, binary, and binary_compressed with its LZF coding."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanReader
from preprocessing.scan_files.colors import SAMPLE_ROWS, packed_column, sample_starts
from preprocessing.scan_files.lzf import LARGEST_RATIO, lzf_stream
from preprocessing.scan_files.names import AXES, COLOR_NAMES, column_roles
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import check_row, open_bytes, rows_at_once, size_in_bytes, truncated
from preprocessing.scan_files.table_layout import Table, TableLayout, first_rows, rows_all_over
from preprocessing.scan_files.tables import Column, binary_rows, row_bytes, text_rows

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
        return row_bytes(self.columns) or 0


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
    layout = TableLayout(header.columns, roles, packed)
    sample: Iterator[Table] = iter(())
    if layout.has_more and header.points:
        if header.data == "binary" and size is not None:
            sample = rows_all_over(path, header.columns, header.points, header.data_start)
        elif header.data == "binary_compressed":
            sample = _expanded(path, header, SAMPLE_ROWS, sample_starts(header.points))
        else:
            sample = first_rows(_tables(path, header, SAMPLE_ROWS), header.points)
    return layout.decided(list(sample)).reader(
        path, "PCD", header.points, lambda: _tables(path, header, chunk_points)
    )


def _tables(path: Path, header: _Header, chunk_points: int) -> Iterator[Table]:
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
