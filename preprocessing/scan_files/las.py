"""LAS and LAZ through laspy; coordinates are scaled in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk


def _laspy(path: Path) -> Any:
    try:
        import laspy
    except ImportError as error:
        raise ScanError(
            f"{path}: LAS and LAZ need two more packages; run: pip install 'tessera[las]'"
        ) from error
    return laspy


def open_las(path: Path, chunk_points: int) -> ScanReader:
    """Open a LAS or LAZ point cloud; see `open_scan`."""
    laspy = _laspy(path)
    try:
        with laspy.open(path) as file:
            header = file.header
            count, kind, start = (
                int(header.point_count),
                header.point_format,
                int(header.offset_to_point_data),
            )
            is_compressed = bool(header.are_points_compressed)
            row = int(kind.size)
    except Exception as error:  # laspy and its decoders raise many kinds
        raise ScanError(
            f"{path}: is not a readable LAS/LAZ file ({error}); copy or export it again"
        ) from error
    if not is_compressed:
        present = max(0, path.stat().st_size - start) // row
        if present < count:
            raise ScanError(
                f"{path}: is truncated: the header promises {count:,} points, the file holds {present:,}; "
                "copy or export it again"
            )
    return ScanReader(
        path, "LAZ" if is_compressed else "LAS", count, lambda: _chunks(path, count, chunk_points)
    )


def _chunks(path: Path, count: int, chunk_points: int) -> Iterator[ScanChunk]:
    laspy = _laspy(path)
    done = 0
    try:
        with laspy.open(path) as file:
            names = set(file.header.point_format.dimension_names)
            for points in file.chunk_iterator(chunk_points):
                columns = {axis: np.asarray(getattr(points, axis)) for axis in "xyz"}
                if "red" in names:
                    shades = {name: np.asarray(points[name]) for name in ("red", "green", "blue")}
                    if max((int(shade.max(initial=0)) for shade in shades.values()), default=0) > 255:
                        columns |= shades
                    else:  # some writers store 8 bits where the format wants 16
                        columns |= {name: shade.astype(np.uint8) for name, shade in shades.items()}
                done += len(points)
                yield columns_to_chunk(columns)
    except ScanError:
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
            raise
        raise _damaged(path, count, done, str(error)) from error
    if done < count:
        raise _damaged(path, count, done, "the data ends early")


def _damaged(path: Path, count: int, done: int, reason: str) -> ScanError:
    return ScanError(
        f"{path}: is truncated or damaged after point {done:,} of {count:,} ({reason}); copy or export it again"
    )
