"""NumPy files, streamed: NPZ with `points` (and `normals`, `colors`), NPY with (N, 3) or more columns."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, to_byte

# What NumPy's header parser (which reads a Python literal) and the archive's decoders raise on damage.
_DAMAGE = (
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    OverflowError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_ZIP, _NPY = b"PK", b"\x93N"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class _Array:
    """Where an array lies and what it is, as its header says."""

    member: str | None
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    data_start: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def open_arrays(path: Path, chunk_points: int) -> ScanReader:
    """Open an NPZ or NPY point cloud; see `open_scan`. Pickled content is never loaded.

    Arrays in Fortran order are read whole: their rows are scattered over the file.
    """
    try:
        arrays = _find_arrays(path)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    points = arrays["points"]
    if len(points.shape) != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise ScanError(
            f"{path}: 'points' must be numbers of shape (N, 3), not {points.dtype} {points.shape}; "
            "save them as a plain array"
        )
    for name in ("normals", "colors"):
        if name in arrays and (
            arrays[name].shape != (points.shape[0], 3) or arrays[name].dtype.kind not in "fiu"
        ):
            raise ScanError(
                f"{path}: '{name}' must be numbers of shape ({points.shape[0]}, 3), "
                f"not {arrays[name].dtype} {arrays[name].shape}; save one row for each point"
            )
    return ScanReader(
        path,
        "NumPy",
        points.shape[0],
        lambda: _chunks(path, arrays, chunk_points),
        has_normals="normals" in arrays,
        has_colors="colors" in arrays,
    )


def _damaged(path: Path, error: Exception) -> ScanError:
    return ScanError(f"{path}: cannot be read as NumPy arrays ({error}); copy or export it again")


def _find_arrays(path: Path) -> dict[str, _Array]:
    with path.open("rb") as file:
        magic = file.read(2)
    if magic == _NPY:
        return {"points": _read_header(path, None)}
    if magic != _ZIP:
        raise ScanError(f"{path}: holds no NumPy arrays (pickles are never opened); save it with np.savez")
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "points" not in names:
        raise ScanError(
            f"{path}: has no array 'points' (it has: {', '.join(map(repr, names))}); save it with np.savez(points=...)"
        )
    return {
        name: _read_header(path, f"{name}.npy") for name in ("points", "normals", "colors") if name in names
    }


def _read_header(path: Path, member: str | None) -> _Array:
    with _stream(path, member) as (stream, size):
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"array version {version}")
        shape, is_fortran, dtype = _HEADERS[version](stream)
        found = _Array(member, shape, is_fortran, dtype, stream.tell())
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never opened")
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape}")
    expected = found.data_start + found.row_bytes * (shape[0] if shape else 1)
    if size < expected:
        raise ValueError(f"{size:,} bytes where its header promises {expected:,}: it is truncated")
    return found


@contextmanager
def _stream(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """A file or a member of an archive, and its size in bytes."""
    if member is None:
        with path.open("rb") as file:
            yield file, path.stat().st_size
    else:
        with zipfile.ZipFile(path) as archive, archive.open(member) as part:
            yield part, archive.getinfo(member).file_size


def _rows(path: Path, array: _Array, chunk_points: int) -> Iterator[NDArray[Any]]:
    with _stream(path, array.member) as (stream, _):
        _exactly(stream, array.data_start)
        left = array.shape[0]
        if array.is_fortran:
            whole = np.frombuffer(_exactly(stream, left * array.row_bytes), array.dtype)
            whole = whole.reshape(array.shape, order="F")
            yield from (whole[start : start + chunk_points] for start in range(0, left, chunk_points))
        else:
            while left:
                rows = min(left, chunk_points)
                data = _exactly(stream, rows * array.row_bytes)
                yield np.frombuffer(data, array.dtype).reshape(rows, *array.shape[1:])
                left -= rows
        stream.read(1)  # an archive compares its checksum when it meets the end


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data):,} bytes instead of {size:,}: it is truncated")
    return data


def _chunks(path: Path, arrays: dict[str, _Array], chunk_points: int) -> Iterator[ScanChunk]:
    parts = {name: _rows(path, array, chunk_points) for name, array in arrays.items()}
    try:
        for values in zip(*parts.values(), strict=True):
            part = dict(zip(parts, values, strict=True))
            yield ScanChunk(
                part["points"][:, :3].astype(np.float64),
                part["normals"].astype(np.float32) if "normals" in part else None,
                to_byte(part["colors"]) if "colors" in part else None,
            )
    except _DAMAGE as error:
        raise _damaged(path, error) from error
