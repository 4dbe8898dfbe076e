"""E57 through pye57, one scan position at a time, in the file's common frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk


def open_e57(path: Path, chunk_points: int) -> ScanReader:
    """Open an E57 point cloud; see `open_scan`. One scan position at a time is in memory.

    Colours are given only if every scan position has them.
    """
    try:
        import pye57
    except ImportError as error:
        raise ScanError(f"{path}: E57 needs one more package; run: pip install pye57") from error
    try:
        file = pye57.E57(str(path))
        headers = [file.get_header(number) for number in range(file.scan_count)]
        counts = [int(header.point_count) for header in headers]
        has_colors = bool(headers) and all("colorRed" in header.point_fields for header in headers)
    except Exception as error:  # the library raises its own C++ exceptions
        raise ScanError(
            f"{path}: is not a readable E57 file ({_first_line(error)}); copy or export it again"
        ) from error

    def chunks() -> Iterator[ScanChunk]:
        for number in range(len(counts)):
            try:
                data = file.read_scan(number, colors=has_colors, ignore_missing_fields=True, transform=True)
            except Exception as error:
                raise ScanError(
                    f"{path}: scan position {number + 1} is damaged ({_first_line(error)}); "
                    "copy or export it again"
                ) from error
            columns = {axis: np.asarray(data[f"cartesian{axis.upper()}"]) for axis in "xyz"}
            if has_colors:
                for channel in ("Red", "Green", "Blue"):
                    columns[channel.lower()] = np.clip(data[f"color{channel}"], 0, 255).astype(np.uint8)
            for start in range(0, len(columns["x"]), chunk_points):
                part = {name: values[start : start + chunk_points] for name, values in columns.items()}
                yield columns_to_chunk(part)

    return ScanReader(path, "E57", sum(counts), chunks, has_colors=has_colors)


def _first_line(error: Exception) -> str:
    """The library appends its source positions on further lines."""
    return str(error).strip().split("\n", 1)[0]
