"""NumPy files, streamed: NPZ archives and NPY arrays, plain or structured, in rows or in columns."""

from __future__ import annotations

import contextlib
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk, decided_roles
from preprocessing.scan_files.colors import (
    SAMPLE_BLOCKS,
    SAMPLE_ROWS,
    ColorScale,
    declared_by,
    packed_column,
    sample_starts,
    unpacked,
)
from preprocessing.scan_files.guessing import WIDEST, UnclearColumnsError, guess_columns
from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES, column_roles
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import LARGEST_ROW, is_gzipped, open_bytes, rows_at_once
from preprocessing.scan_files.tables import pass_over, read_exactly

# What NumPy's header parser (which reads a Python literal) and the archive's decoders raise on damage.
_DAMAGE = (
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    OverflowError,
    TypeError,
    MemoryError,
    NotImplementedError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_ZIP, _NPY = b"PK", b"\x93N"
MOST_COLUMNS = 64  # of points; more are features, or points in a row
LONGEST_REASON = 200
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_NAMES = {
    "points": ("points", "xyz", "pts", "pos", "position", "positions", "point_cloud", "pointcloud", "pc", "coords",
               "coord", "vertices", "arr_0", "data", "cloud"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "color", "colours", "colour", "rgb", "rgba"),
}  # fmt: skip


@dataclass(frozen=True)
class _Array:
    """Where an array of rows lies and what it is.

    Attributes:
        member: of the archive, or None.
        rows, width: the table that it is read as: `width` values of type `dtype` in each row.
        by_columns: all values of one column come first, then those of the next.
        data_start: its first byte.
        shape: as stored.
    """

    member: str | None
    rows: int
    width: int
    by_columns: bool
    dtype: np.dtype[Any]
    data_start: int
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize


@dataclass(frozen=True)
class _Layout:
    """Which array and column each role is read from, whether one column packs all colors, and their scale."""

    places: dict[str, tuple[str, int | str]]
    arrays: dict[str, _Array]
    scale: ColorScale | None = None
    is_packed: bool = False

    def named(self, block: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A block with colors of their own."""
        if not self.is_packed or COLOR_NAMES[0] not in block:
            return block
        values = block[COLOR_NAMES[0]]
        return block | unpacked(values, values.dtype.str)


def open_arrays(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open an NPZ or NPY point cloud; see `open_scan`. Pickled content is never loaded.

    An archive holds `points` (and `normals`, `colors`), under these or other usual names, or x, y and z; an
    array is (N, 3) or wider, (H, W, 3), (3, N), or structured with named fields. Arrays in Fortran order are read
    at as many places as they have columns.
    """
    try:
        arrays = _find_arrays(path)
        layout = _find_layout(path, arrays, options)
        sample = _sample(path, layout)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    kinds = [sample[name].dtype.str for name in COLOR_NAMES if name in sample]
    places, scale = decided_roles(layout.places, sample, "u1" if layout.is_packed else declared_by(kinds))
    layout = replace(layout, places=places, scale=scale)
    return ScanReader(
        path,
        "NumPy",
        layout.arrays[layout.places["x"][0]].rows,
        lambda: _chunks(path, layout, chunk_points),
        has_normals=NORMAL_NAMES[0] in places,
        has_colors=scale is not None,
        columns={
            role: f"{array} column {column + 1}" if isinstance(column, int) else column
            for role, (array, column) in places.items()
        },
    )


def _damaged(path: Path, error: Exception) -> ScanError:
    reason = " ".join(str(error).split())[:LONGEST_REASON]  # some quote the whole file
    return ScanError(f"{path}: cannot be read as NumPy arrays ({reason}); save it again")


def _find_arrays(path: Path) -> dict[str, _Array]:
    """Every array that could be one of rows, by its name in the archive (a lone one is called `points`)."""
    with open_bytes(path) as file:
        magic = file.read(2)
    if magic == _NPY:
        return {"points": _read_header(path, None)}
    if magic != _ZIP:
        raise ScanError(f"{path}: holds no NumPy arrays (pickles are never opened); save it with np.savez")
    if is_gzipped(path):
        raise ScanError(f"{path}: an NPZ archive is compressed already; unpack it with gunzip first")
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    known = {name for names_of in _NAMES.values() for name in names_of}
    # x, y, z, red, ... each in its own array
    apart = {names[place] for place in column_roles(names).values()}
    arrays: dict[str, _Array] = {}
    for name in names:
        if name.lower() in known or name in apart:
            arrays.setdefault(name.lower(), _read_header(path, f"{name}.npy"))
    if not arrays and len(names) == 1:
        arrays["points"] = _read_header(path, f"{names[0]}.npy")
    has_axes = all(axis in column_roles(list(arrays)) for axis in AXES)
    if not any(name in arrays for name in _NAMES["points"]) and not has_axes:
        raise ScanError(
            f"{path}: has no array 'points' (it has: {', '.join(map(repr, names[:20]))}); "
            "save it with np.savez(points=...)"
        )
    return arrays


def _read_header(path: Path, member: str | None) -> _Array:
    with _stream(path, member) as (stream, size):
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"array version {version}")
        shape, is_fortran, dtype = _HEADERS[version](stream)
        start = stream.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never opened")
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape}")
    expected = start + math.prod(shape) * dtype.itemsize
    if size is not None and size < expected:
        raise ValueError(f"{size:,} bytes where its header promises {expected:,}: it is truncated")
    if dtype.names is not None or len(shape) <= 1:
        rows, width, by_columns = math.prod(shape), 1, False
    elif len(shape) == 2 and (
        3 == shape[0] < shape[1] or (3 < shape[0] <= WIDEST and shape[1] > MOST_COLUMNS)
    ):
        # (3, N) and so on: the file's rows are columns.
        rows, width, by_columns = shape[1], shape[0], not is_fortran
    else:
        rows, width, by_columns = math.prod(shape[:-1]), shape[-1], is_fortran
    found = _Array(member, rows, width, by_columns, dtype, start, shape)
    if found.row_bytes > LARGEST_ROW:
        raise ValueError(f"shape {shape} has {found.row_bytes:,} bytes in a row, which is no point")
    return found


def _find_layout(path: Path, arrays: dict[str, _Array], options: ScanOptions) -> _Layout:
    points = next((name for name in _NAMES["points"] if name in arrays), None)
    if points is None:
        return _apart(path, arrays)
    array = arrays[points]
    places: dict[str, tuple[str, int | str]] = {}
    if array.dtype.names is not None:
        fields = [
            name
            for name in array.dtype.names
            if array.dtype[name].kind in "fiu" and not array.dtype[name].shape
        ]
        names = list(options.columns) or fields
        places = {
            role: (points, fields[place])
            for role, place in column_roles(names).items()
            if place < len(fields)
        }
        if not all(axis in places for axis in AXES):
            raise ScanError(
                f"{path}: its records have no fields x, y and z of one number each but "
                f"{', '.join(array.dtype.names)}; "
                + ("name them with --columns" if len(fields) > 2 else "save them as np.savez(points=...)")
            )
        packed = packed_column({name: array.dtype[name].str for name in fields})
        if packed is None or COLOR_NAMES[0] in places:
            return _Layout(places, {points: array})
        places |= dict.fromkeys(COLOR_NAMES, (points, packed))
        return _Layout(places, {points: array}, is_packed=True)
    if array.width < 3 or array.dtype.kind not in "fiu" or len(array.shape) < 2:
        raise ScanError(
            f"{path}: '{points}' must be numbers of shape (N, 3), not {array.dtype} {array.shape}; "
            "save them as a plain array"
        )
    chosen = {points: array}
    if options.columns:
        roles = column_roles(options.columns)
        if not all(axis in roles for axis in AXES) or len(options.columns) > array.width:
            raise ScanError(f"{path}: has {array.width} columns, of which --columns must name x, y and z")
    else:
        roles = _roles_by_values(path, points, array)
    places = {role: (points, place) for role, place in roles.items()}
    for kind, roles_of in (("normals", NORMAL_NAMES), ("colors", COLOR_NAMES)):
        name = next((name for name in _NAMES[kind] if name in arrays and name != points), None)
        if name is None:
            continue
        other = arrays[name]
        if other.rows != array.rows or other.width not in (3, 4) or other.dtype.kind not in "fiu":
            raise ScanError(
                f"{path}: '{name}' must be numbers of shape ({array.rows}, 3), not {other.dtype} {other.shape}; "
                "save one row for each point"
            )
        chosen[name] = other
        places |= {role: (name, number) for number, role in enumerate(roles_of)}
    return _Layout(places, chosen)


def _apart(path: Path, arrays: dict[str, _Array]) -> _Layout:
    """The layout of an archive with an array for each of x, y, z, red, ..."""
    names = list(arrays)
    roles = {role: names[place] for role, place in column_roles(names).items()}
    for name in roles.values():
        array = arrays[name]
        if array.width != 1 or array.rows != arrays[roles["x"]].rows or array.dtype.kind not in "fiu":
            raise ScanError(
                f"{path}: '{name}' must be {arrays[roles['x']].rows:,} numbers, not {array.dtype} {array.shape}; save "
                "one for each point"
            )
    return _Layout(
        {role: (name, 0) for role, name in roles.items()}, {name: arrays[name] for name in roles.values()}
    )


def _roles_by_values(path: Path, name: str, array: _Array) -> dict[str, int]:
    """The columns of a table without names: wide ones are told as those of a text file are."""
    if array.width == 3 or array.rows == 0 or array.width > MOST_COLUMNS:
        return dict(zip(AXES, range(3), strict=True))
    rows = next(_rows(path, array, SAMPLE_ROWS, list(range(array.width))))
    values = np.stack([np.asarray(rows[column], np.float64) for column in range(array.width)], axis=1)
    try:
        return guess_columns(values)
    except UnclearColumnsError as error:
        raise ScanError(f"{path}: {error} in '{name}'; name the columns, as in --columns ,x,y,z") from error


@contextmanager
def _stream(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int | None]]:
    """A file or a member of an archive, and its size in bytes."""
    if member is None:
        with open_bytes(path) as file:
            yield file, None if is_gzipped(path) else path.stat().st_size
    else:
        with zipfile.ZipFile(path) as archive, archive.open(member) as part:
            yield part, archive.getinfo(member).file_size


def _rows(
    path: Path, array: _Array, chunk_points: int, columns: list[int], starts: list[int] | None = None
) -> Iterator[dict[int, NDArray[Any]]]:
    """Blocks of some columns: of all rows, or of those that begin at `starts`."""
    step = rows_at_once(array.row_bytes, chunk_points)
    starts = list(range(0, array.rows, step)) if starts is None else starts
    size = array.dtype.itemsize
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(_stream(path, array.member))[0]
            for _ in (columns if array.by_columns else [0])
        ]
        for start in starts:
            count = min(step, array.rows - start)
            if array.by_columns:
                yield {
                    column: np.frombuffer(
                        _part(stream, array.data_start + (column * array.rows + start) * size, count * size),
                        array.dtype,
                    )
                    for column, stream in zip(columns, streams, strict=True)
                }
            else:
                data = _part(streams[0], array.data_start + start * array.row_bytes, count * array.row_bytes)
                table = np.frombuffer(data, array.dtype).reshape(count, array.width)
                yield {column: table[:, column] for column in columns}
        if not array.by_columns:
            streams[0].read(1)  # an archive compares its checksum when it meets the end


def _part(stream: IO[bytes], place: int, size: int) -> bytes:
    if isinstance(stream, zipfile.ZipExtFile) and stream.tell() < place:
        if not pass_over(stream, place - stream.tell()):  # its own seek would hold more
            raise EOFError("it is truncated")
    elif stream.tell() != place:
        stream.seek(place)
    data = read_exactly(stream, size)
    if len(data) < size:
        raise EOFError(f"{len(data):,} bytes instead of {size:,}: it is truncated")
    return data


def _blocks(
    path: Path, layout: _Layout, chunk_points: int, starts: list[int] | None = None
) -> Iterator[dict[str, NDArray[Any]]]:
    """Blocks of all roles, row for row."""
    step = min(rows_at_once(array.row_bytes, chunk_points) for array in layout.arrays.values())
    readers: dict[str, Iterator[dict[int, NDArray[Any]]]] = {}
    for name, array in layout.arrays.items():
        used = sorted(
            {place for owner, place in layout.places.values() if owner == name and isinstance(place, int)}
        )
        readers[name] = _rows(path, array, step, used or [0], starts)
    for parts in zip(*readers.values(), strict=True):
        block = dict(zip(readers, parts, strict=True))
        yield {
            role: block[owner][place]
            if isinstance(place, int)
            else cast(NDArray[Any], block[owner][0][place])
            for role, (owner, place) in layout.places.items()
        }


def _sample(path: Path, layout: _Layout) -> dict[str, NDArray[Any]]:
    """Values of colors and normals from all over the file; from the beginning of a large compressed one."""
    places = {role: place for role, place in layout.places.items() if role not in AXES}
    if not places:
        return {}
    used = {owner for owner, _ in places.values()}
    part = replace(
        layout, places=places, arrays={name: layout.arrays[name] for name in layout.arrays if name in used}
    )
    rows = next(iter(part.arrays.values())).rows
    is_packed = is_gzipped(path) or any(array.member for array in part.arrays.values())
    starts = (
        list(range(0, min(rows, SAMPLE_BLOCKS * SAMPLE_ROWS), SAMPLE_ROWS))
        if is_packed
        else sample_starts(rows)
    )
    blocks = [part.named(block) for block in _blocks(path, part, SAMPLE_ROWS, starts)]
    return (
        {role: np.concatenate([block[role] for block in blocks]) for role in places}
        if blocks
        else {role: np.zeros(0) for role in places}
    )


def _chunks(path: Path, layout: _Layout, chunk_points: int) -> Iterator[ScanChunk]:
    try:
        for block in _blocks(path, layout, chunk_points):
            yield columns_to_chunk(layout.named(block), layout.scale)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
