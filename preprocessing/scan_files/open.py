"""Choosing the reader by the file's suffix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from preprocessing.errors import ScanError
from preprocessing.scan_files.arrays import open_arrays
from preprocessing.scan_files.chunks import ScanChunk, ScanReader
from preprocessing.scan_files.e57 import open_e57
from preprocessing.scan_files.las import open_las
from preprocessing.scan_files.pcd import open_pcd
from preprocessing.scan_files.ply import open_ply
from preprocessing.scan_files.text import open_text

_READERS: dict[str, Callable[[Path, int], ScanReader]] = {
    ".ply": open_ply,
    ".pcd": open_pcd,
    ".xyz": open_text,
    ".txt": open_text,
    ".csv": open_text,
    ".asc": open_text,
    ".pts": open_text,
    ".npz": open_arrays,
    ".npy": open_arrays,
    ".las": open_las,
    ".laz": open_las,
    ".e57": open_e57,
}
SCAN_SUFFIXES = tuple(_READERS)
NATIVE_SUFFIXES = (".las", ".laz", ".e57")  # decoded by libraries that a damaged file can crash
_MESHES = (".obj", ".off", ".stl", ".glb", ".gltf")


def open_scan(path: Path, chunk_points: int = 1_000_000) -> ScanReader:
    """Open a point cloud for reading in chunks.

    Args:
        path: the file; its suffix names the format.
        chunk_points: most points of a chunk, at least 1.

    Raises:
        ScanError: if the file is missing, empty, of an unknown format, a mesh, or has a damaged header;
            iterating raises it where the data behind the header is damaged.
        ValueError: if `chunk_points` is not positive.
    """
    if chunk_points < 1:
        raise ValueError(f"chunk_points must be at least 1, not {chunk_points}")
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise ScanError(f"{path}: no such file")
    if path.is_dir():
        raise ScanError(f"{path}: is a folder; name one scan file")
    if suffix in _MESHES:
        raise ScanError(
            f"{path}: {suffix} is a mesh format, not a point cloud; sample points on the mesh first"
        )
    if suffix not in _READERS:
        raise ScanError(f"{path}: unknown scan format '{suffix}'; readable are {', '.join(SCAN_SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise ScanError(f"{path}: is empty (0 bytes); copy or export it again")
        reader = _READERS[suffix](path, chunk_points)
    except OSError as error:
        raise _unreadable(path, error) from error
    return replace(reader, chunks=lambda: _guarded(reader))


def _guarded(reader: ScanReader) -> Iterator[ScanChunk]:
    try:
        yield from reader.chunks()
    except OSError as error:  # a lost network drive, a failing disk
        raise _unreadable(reader.path, error) from error


def _unreadable(path: Path, error: OSError) -> ScanError:
    return ScanError(
        f"{path}: cannot be read ({error.strerror or error}); check its permissions and its disk"
    )
