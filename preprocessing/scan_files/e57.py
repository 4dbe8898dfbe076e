"""E57 through pye57, one scan position at a time, in the file's common frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk


def open_e57(path: Path, chunk_points: int) -> ScanReader:
    """Open an E57 point cloud; see `open_scan`. A chunk holds at most one scan position."""
    try:
        import pye57
    except ImportError as error:
        raise ScanError(f"{path}: E57 needs one more package; run: pip install 'tessera[e57]'") from error
    try:
        file = pye57.E57(str(path))
        counts = [int(file.get_header(number).point_count) for number in range(file.scan_count)]
    except Exception as error:  # the library raises its own C++ exceptions
        raise ScanError(f"{path}: is not a readable E57 file ({error}); copy or export it again") from error

    def chunks() -> Iterator[ScanChunk]:
        for number in range(len(counts)):
            try:
                data = file.read_scan(number, colors=True, ignore_missing_fields=True, transform=True)
            except Exception as error:
                raise ScanError(f"{path}: scan position {number} is damaged ({error})") from error
            columns = {axis: np.asarray(data[f"cartesian{axis.upper()}"]) for axis in "xyz"}
            if "colorRed" in data:
                for channel in ("Red", "Green", "Blue"):
                    columns[channel.lower()] = np.clip(data[f"color{channel}"], 0, 255).astype(np.uint8)
            for start in range(0, len(columns["x"]), chunk_points):
                part = {name: values[start : start + chunk_points] for name, values in columns.items()}
                yield columns_to_chunk(part)

    return ScanReader(path, "E57", sum(counts), chunks)
