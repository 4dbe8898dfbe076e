"""PLY point clouds: ASCII and binary of either byte order, whatever stands beside and before the vertices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.atomic_file import appearing
from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanReader
from preprocessing.scan_files.colors import SAMPLE_ROWS, packed_column
from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES, column_roles, repeated_axis
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import (
    check_row,
    head_of,
    is_gzipped,
    open_bytes,
    size_in_bytes,
    truncated,
)
from preprocessing.scan_files.table_layout import Table, TableLayout, first_rows, rows_all_over
from preprocessing.scan_files.tables import Column, binary_rows, pass_over, row_bytes, skip_rows, text_rows

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8", "int64": "i8", "uint64": "u8", "long": "i8", "ulong": "u8",
}  # fmt: skip
FACES = ("face", "faces", "tristrips", "tristrip")
LONGEST_HEADER = 1 << 16
_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class PlyElement:
    """One element of a PLY header: its name, its number of rows and their columns."""

    name: str
    rows: int
    columns: list[Column] = field(default_factory=list)


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY file says of itself; its rows begin at byte `data_start`."""

    is_ascii: bool
    elements: list[PlyElement]
    data_start: int

    def element(self, *names: str) -> PlyElement | None:
        """The first element of one of these names that has rows."""
        return next((element for element in self.elements if element.name in names and element.rows), None)


def read_ply_header(path: Path) -> PlyHeader:
    """Parse the header of a PLY file.

    Raises:
        ScanError: if it is none, does not end, or cannot be understood; quotes the line.
    """
    head = head_of(path, LONGEST_HEADER)
    start = re.match(rb"(?:\xef\xbb\xbf)?ply[ \t]*(\r\n|\n|\r)", head)
    if not start:
        raise ScanError(f"{path}: is not a PLY file (it does not start with 'ply'); check its suffix")
    end = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r|\Z)", head)  # where nothing follows: no rows at all
    if not end:
        raise ScanError(
            f"{path}: the PLY header does not end; the file is truncated, copy or export it again"
        )
    # Where lines end with a lone return, a byte 10 behind the header belongs to the data.
    stop = end.end() - 1 if end.group(1) == b"\r\n" and start.group(1) == b"\r" else end.end()
    layout, elements = "", list[PlyElement]()
    for line in re.split(rb"[\r\n]+", head[start.end() : end.start()]):
        words = line.decode("latin-1").split()
        if not words or words[0].lower() in ("comment", "obj_info"):
            continue
        try:
            keyword = words[0].lower()
            if keyword == "format":
                layout = words[1].lower()
            elif keyword == "element":
                elements.append(PlyElement(words[1].lower(), int(words[2])))
            elif keyword == "property":
                elements[-1].columns.append(_column(words[1:], _ORDERS.get(layout, "<")))
            else:
                raise ValueError(words[0])
            if elements and elements[-1].rows < 0:
                raise ValueError("a negative number of rows")
        except (ValueError, IndexError, KeyError) as error:
            raise ScanError(
                f"{path}: damaged PLY header at {line[:60]!r}; copy or export it again"
            ) from error
    if layout not in _ORDERS:
        raise ScanError(f"{path}: unknown PLY format {layout!r}; export it as binary or ascii PLY 1.0")
    return PlyHeader(layout == "ascii", elements, stop)


def _column(words: list[str], order: str) -> Column:
    """A property from `float x` or `list uchar int vertex_indices`."""
    kinds = [word.lower() for word in words[:-1]]
    if kinds[0] == "list":
        return Column(words[3], order + _TYPES[kinds[2]], length_kind=order + _TYPES[kinds[1]])
    return Column(" ".join(words[1:]), order + _TYPES[kinds[0]])


def open_ply(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open a PLY point cloud; see `open_scan`."""
    header = read_ply_header(path)
    faces = header.element(*FACES)
    if faces is not None and not options.use_vertices:
        raise ScanError(
            f"{path}: is a mesh with {faces.rows:,} {'tristrips' if 'strip' in faces.name else 'faces'}, not a point "
            "cloud; pass --use-vertices to take its vertices as points, or sample points on it first"
        )
    vertex = next(
        (element for element in header.elements if element.name in ("vertex", "vertices", "point")), None
    )
    if vertex is None:
        raise ScanError(f"{path}: the PLY file has no vertices; export it as a plain point cloud")
    plain = [("" if column.length_kind else column.name) for column in vertex.columns]
    roles = column_roles(plain)
    if not all(axis in roles for axis in AXES) or repeated_axis(plain):
        raise ScanError(
            f"{path}: the vertices have no x, y and z (once each), but {', '.join(plain) or 'nothing'}; "
            "export it as a plain point cloud"
        )
    size = row_bytes(vertex.columns)
    check_row(path, size or 0)
    if not header.is_ascii:
        _check_size(path, header, vertex)
    packed_name = packed_column(
        {column.name: column.kind for column in vertex.columns if not column.length_kind}
    )
    packed = None
    if packed_name is not None and COLOR_NAMES[0] not in roles:
        packed = plain.index(packed_name)
    layout = TableLayout(vertex.columns, roles, packed)
    sample: Iterator[Table] = iter(())
    if layout.has_more and vertex.rows:
        if header.is_ascii or size is None or is_gzipped(path) or header.elements[0] is not vertex:
            sample = first_rows(_tables(path, header, vertex, SAMPLE_ROWS), vertex.rows)
        else:
            sample = rows_all_over(path, vertex.columns, vertex.rows, header.data_start)
    return layout.decided(list(sample)).reader(
        path, "PLY", vertex.rows, lambda: _tables(path, header, vertex, chunk_points)
    )


def _check_size(path: Path, header: PlyHeader, vertex: PlyElement) -> None:
    """Compare what the header promises with the file's size, as far as rows of one size reach."""
    size = size_in_bytes(path)
    place = header.data_start
    for element in header.elements:
        row = row_bytes(element.columns)
        if row is None or size is None:
            return
        if element is vertex:
            present = max(0, size - place) // max(1, row)
            if present < element.rows:
                raise truncated(path, element.rows, present)
            return
        place += element.rows * row


def _tables(path: Path, header: PlyHeader, vertex: PlyElement, chunk_points: int) -> Iterator[Table]:
    with open_bytes(path) as file:
        pass_over(file, header.data_start)
        before = header.elements[: header.elements.index(vertex)]
        if header.is_ascii:
            skipped = sum(element.rows for element in before)
            yield from text_rows(path, file, vertex.columns, vertex.rows, chunk_points, skipped)
        else:
            for element in before:
                skip_rows(path, file, element.columns, element.rows)
            yield from binary_rows(path, file, vertex.columns, vertex.rows, chunk_points)


def write_scan_ply(
    path: Path,
    points: NDArray[np.float64],
    normals: NDArray[np.floating] | None = None,
    colors: NDArray[np.uint8] | None = None,
) -> None:
    """Write a binary PLY point cloud in double precision; it appears whole or not at all.

    Args:
        path: the file.
        points: (N, 3); normals: (N, 3) or None; colors: (N, 3) uint8 or None.

    Raises:
        ScanError: if the disk is full or the place cannot be written.
    """
    columns: list[tuple[str, str, NDArray[Any]]] = []
    for names, kind, values in (
        (AXES, "<f8", points),
        (NORMAL_NAMES, "<f4", normals),
        (COLOR_NAMES, "u1", colors),
    ):
        if values is not None:
            columns += [(name, kind, values[:, axis]) for axis, name in enumerate(names)]
    rows = np.empty(len(points), np.dtype([(name, kind) for name, kind, _ in columns]))
    for name, _, values in columns:
        rows[name] = values
    kinds = {"<f8": "double", "<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {kinds[kind]} {name}" for name, kind, _ in columns] + ["end_header", ""]
    try:
        with appearing(path) as partial, partial.open("wb") as file:
            file.write("\n".join(lines).encode())
            file.write(rows.data)
    except OSError as error:
        raise ScanError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another file"
        ) from error
