"""PLY point clouds: ASCII and binary of either byte order, whatever stands beside and before the vertices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.atomic_file import appearing
from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, are_normals, columns_to_chunk
from preprocessing.scan_files.colors import (
    SAMPLE_BLOCKS,
    SAMPLE_ROWS,
    ColorScale,
    decide_scale,
    declared_by,
    packed_column,
    sample_starts,
    unpacked,
)
from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES, column_roles, repeated_axis
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import check_row, head_of, open_bytes, size_in_bytes, truncated
from preprocessing.scan_files.tables import Column, binary_rows, pass_over, skip_rows, text_rows

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

    @property
    def row_bytes(self) -> int | None:
        """Size of a binary row; None where a list makes it vary."""
        if any(column.length_kind for column in self.columns):
            return None
        return sum(np.dtype(column.kind).itemsize for column in self.columns)


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
    end = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", head)
    if not end:
        if re.search(rb"[\r\n]end_header[ \t]*$", head):  # nothing follows: no rows at all
            end = re.search(rb"[\r\n](end_header)[ \t]*$", head)
        else:
            raise ScanError(
                f"{path}: the PLY header does not end; the file is truncated, copy or export it again"
            )
    assert end is not None
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


@dataclass(frozen=True)
class _Layout:
    """What is read of a PLY file: the vertices, their columns by role, the colors' scale, their column if packed."""

    header: PlyHeader
    vertex: PlyElement
    roles: dict[str, int]
    scale: ColorScale | None = None
    packed: int | None = None

    def named(self, table: Mapping[int, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Columns of a block by role."""
        named = {role: table[place] for role, place in self.roles.items()}
        if self.packed is not None:
            named |= unpacked(table[self.packed], self.vertex.columns[self.packed].kind)
        return named


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
    check_row(path, vertex.row_bytes or 0)
    if not header.is_ascii:
        _check_size(path, header, vertex)
    packed_name = packed_column(
        {column.name: column.kind for column in vertex.columns if not column.length_kind}
    )
    packed = None
    if packed_name is not None and COLOR_NAMES[0] not in roles:
        packed = plain.index(packed_name)
    layout = _Layout(header, vertex, roles, packed=packed)
    sample = _sample(path, layout)
    if not are_normals(sample):
        roles = {name: place for name, place in roles.items() if name not in NORMAL_NAMES}
    scale = None
    if packed is not None:
        scale = decide_scale([sample[name] for name in COLOR_NAMES], "u1") if sample else None
        packed = None if scale is None else packed
    elif COLOR_NAMES[0] in roles and sample:
        declared = declared_by(vertex.columns[roles[name]].kind for name in COLOR_NAMES)
        fractional = any((sample[name] % 1 != 0).any() for name in COLOR_NAMES)
        scale = decide_scale([sample[name] for name in COLOR_NAMES], None if fractional else declared)
    layout = _Layout(header, vertex, roles, scale, packed)
    columns = {
        role: vertex.columns[place].name
        for role, place in roles.items()
        if scale is not None or role not in COLOR_NAMES
    }
    if packed is not None:
        columns |= dict.fromkeys(COLOR_NAMES, plain[packed])
    return ScanReader(
        path,
        "PLY",
        vertex.rows,
        lambda: _chunks(path, layout, chunk_points),
        has_normals=NORMAL_NAMES[0] in roles,
        has_colors=scale is not None,
        columns=columns,
    )


def _check_size(path: Path, header: PlyHeader, vertex: PlyElement) -> None:
    """Compare what the header promises with the file's size, as far as rows of one size reach."""
    size = size_in_bytes(path)
    place = header.data_start
    for element in header.elements:
        if element.row_bytes is None or size is None:
            return
        if element is vertex:
            present = max(0, size - place) // max(1, element.row_bytes)
            if present < element.rows:
                raise truncated(path, element.rows, present)
            return
        place += element.rows * element.row_bytes


def _sample(path: Path, layout: _Layout) -> dict[str, NDArray[Any]]:
    """Values of the colors and normals from all over the file; from its beginning where rows cannot be found."""
    wanted = [name for name in (*COLOR_NAMES, *NORMAL_NAMES) if name in layout.roles]
    parts: list[dict[int, NDArray[Any]]] = []
    if (not wanted and layout.packed is None) or not layout.vertex.rows:
        return {}
    row_bytes, size = layout.vertex.row_bytes, size_in_bytes(path)
    if (
        layout.header.is_ascii
        or row_bytes is None
        or size is None
        or layout.header.elements[0] is not layout.vertex
    ):
        limit = min(layout.vertex.rows, SAMPLE_BLOCKS * SAMPLE_ROWS)
        rows = _tables(path, layout, SAMPLE_ROWS)
        done = 0
        while done < limit:
            parts.append(next(rows))
            done += len(next(iter(parts[-1].values())))
    else:
        with path.open("rb") as file:
            for start in sample_starts(layout.vertex.rows):
                file.seek(layout.header.data_start + start * row_bytes)
                count = min(SAMPLE_ROWS, layout.vertex.rows - start)
                parts.extend(binary_rows(path, file, layout.vertex.columns, count, count))
    named = [layout.named(part) for part in parts]
    return {name: np.concatenate([part[name] for part in named]) for name in named[0] if name not in AXES}


def _tables(path: Path, layout: _Layout, chunk_points: int) -> Iterator[dict[int, NDArray[Any]]]:
    with open_bytes(path) as file:
        pass_over(file, layout.header.data_start)
        before = layout.header.elements[: layout.header.elements.index(layout.vertex)]
        columns, rows = layout.vertex.columns, layout.vertex.rows
        if layout.header.is_ascii:
            skipped = sum(element.rows for element in before)
            yield from text_rows(path, file, columns, rows, chunk_points, skipped)
        else:
            for element in before:
                skip_rows(path, file, element.columns, element.rows)
            yield from binary_rows(path, file, columns, rows, chunk_points)


def _chunks(path: Path, layout: _Layout, chunk_points: int) -> Iterator[ScanChunk]:
    for table in _tables(path, layout, chunk_points):
        yield columns_to_chunk(layout.named(table), layout.scale)


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
    fields = [(axis, "<f8") for axis in "xyz"]
    parts: dict[str, NDArray[Any]] = {axis: points[:, number] for number, axis in enumerate("xyz")}
    if normals is not None:
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
        parts |= {name: normals[:, number] for number, name in enumerate(("nx", "ny", "nz"))}
    if colors is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        parts |= {name: colors[:, number] for number, name in enumerate(("red", "green", "blue"))}
    rows = np.empty(len(points), np.dtype(fields))
    for name, values in parts.items():
        rows[name] = values
    kinds = {"<f8": "double", "<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in fields] + ["end_header", ""]
    try:
        with appearing(path) as partial, partial.open("wb") as file:
            file.write("\n".join(lines).encode())
            file.write(rows.data)
    except OSError as error:
        raise ScanError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another file"
        ) from error
