"""COLMAP's points3D.bin: positions, colors, and for each point the pictures that see it, which are passed over."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk
from preprocessing.scan_files.colors import BYTES, SAMPLE_BLOCKS, SAMPLE_ROWS, decide_scale
from preprocessing.scan_files.names import AXES, COLOR_NAMES
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import open_bytes, size_in_bytes, truncated
from preprocessing.scan_files.tables import Column, binary_rows

_COLUMNS = (
    Column("POINT3D_ID", "<u8"),
    *(Column(axis.upper(), "<f8") for axis in AXES),
    *(Column(name, "u1") for name in "RGB"),
    Column("ERROR", "<f8"),
    Column("TRACK", "<u8", length_kind="<u8"),  # pairs of 32-bit numbers: picture and feature
)
_PLACES = dict(zip((*AXES, *COLOR_NAMES), range(1, 7), strict=True))
_COUNT = struct.Struct("<Q")
FEWEST_BYTES = 8 + 3 * 8 + 3 + 8 + 8  # of a point that no picture sees


def open_colmap(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open the points of a binary COLMAP model; see `open_scan`."""
    with open_bytes(path) as file:
        head = file.read(_COUNT.size)
    count = _COUNT.unpack(head)[0] if len(head) == _COUNT.size else 0
    size = size_in_bytes(path)
    if not count:
        raise ScanError(f"{path}: holds no points; check that the reconstruction by COLMAP finished")
    if size is not None and size < _COUNT.size + FEWEST_BYTES * count:
        raise truncated(path, count, (size - _COUNT.size) // FEWEST_BYTES)
    sample = list(islice(_chunks(path, count, SAMPLE_ROWS, has_colors=True), SAMPLE_BLOCKS))
    shades = [chunk.colors for chunk in sample if chunk.colors is not None]
    has_colors = decide_scale(shades, "u1") is not None
    return ScanReader(
        path,
        "COLMAP",
        count,
        lambda: _chunks(path, count, chunk_points, has_colors),
        has_colors=has_colors,
        columns={
            role: _COLUMNS[place].name
            for role, place in _PLACES.items()
            if has_colors or role not in COLOR_NAMES
        },
    )


def _chunks(path: Path, count: int, chunk_points: int, has_colors: bool) -> Iterator[ScanChunk]:
    with open_bytes(path) as file:
        file.read(_COUNT.size)
        for table in binary_rows(path, file, _COLUMNS, count, chunk_points):
            columns = {role: table[place] for role, place in _PLACES.items()}
            yield columns_to_chunk(columns, BYTES if has_colors else None)
