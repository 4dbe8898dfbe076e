"""LAS and LAZ through laspy; coordinates are scaled in double precision."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import COLOR_NAMES, ScanChunk, ScanReader, columns_to_chunk, truncated

RECORD_BYTES = 54  # of a variable length record without its content
_RECORDS = struct.Struct("<94xHII")  # size of the header, start of the points, number of records


def _laspy(path: Path) -> Any:
    try:
        import laspy
    except ImportError as error:
        raise ScanError(
            f"{path}: LAS and LAZ need two more packages; run: pip install laspy lazrs"
        ) from error
    return laspy


def open_las(path: Path, chunk_points: int) -> ScanReader:
    """Open a LAS or LAZ point cloud; see `open_scan`."""
    laspy = _laspy(path)
    _check_records(path)
    try:
        with laspy.open(path, read_evlrs=False) as file:
            header = file.header
            count, kind, start = (
                int(header.point_count),
                header.point_format,
                int(header.offset_to_point_data),
            )
            is_compressed = bool(header.are_points_compressed)
            row = int(kind.size)
            has_colors = "red" in kind.dimension_names
    except Exception as error:  # laspy and its decoders raise many kinds
        raise ScanError(
            f"{path}: is not a readable LAS/LAZ file ({_reason(error)}); copy or export it again"
        ) from error
    if not is_compressed:
        present = max(0, path.stat().st_size - start) // row
        if present < count:
            raise truncated(path, count, present)
    return ScanReader(
        path,
        "LAZ" if is_compressed else "LAS",
        count,
        lambda: _chunks(path, count, chunk_points),
        has_colors=has_colors,
    )


def _check_records(path: Path) -> None:
    """Refuse a header whose variable length records cannot lie before the points: laspy would make billions of them."""
    with path.open("rb") as file:
        head = file.read(_RECORDS.size)
    if len(head) == _RECORDS.size:
        header_bytes, points_start, records = _RECORDS.unpack(head)
        if header_bytes + RECORD_BYTES * records > points_start:
            raise ScanError(
                f"{path}: is not a readable LAS/LAZ file (the header promises {records:,} records before the points); "
                "copy or export it again"
            )


def _chunks(path: Path, count: int, chunk_points: int) -> Iterator[ScanChunk]:
    laspy = _laspy(path)
    done = 0
    are_bytes: bool | None = None
    try:
        with laspy.open(path, read_evlrs=False) as file:
            names = set(file.header.point_format.dimension_names)
            for points in file.chunk_iterator(chunk_points):
                columns = {axis: np.asarray(getattr(points, axis)) for axis in "xyz"}
                if "red" in names:
                    shades = {name: np.asarray(points[name]) for name in COLOR_NAMES}
                    # Some writers store 8 bits where the format wants 16. One answer for the whole file:
                    # a dark chunk must not be read by another scale than its neighbours.
                    brightest = max((int(shade.max(initial=0)) for shade in shades.values()), default=0)
                    if brightest > 255:
                        are_bytes = False
                    elif brightest and are_bytes is None:
                        are_bytes = True
                    columns |= {
                        name: shade.astype(np.uint8) if are_bytes else shade for name, shade in shades.items()
                    }
                done += len(points)
                yield columns_to_chunk(columns)
    except ScanError:
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
            raise
        raise _damaged(path, count, done, _reason(error)) from error
    if done < count:
        raise _damaged(path, count, done, "the data ends early")


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _damaged(path: Path, count: int, done: int, reason: str) -> ScanError:
    return ScanError(
        f"{path}: is truncated or damaged after point {done:,} of {count:,} ({reason}); copy or export it again"
    )
