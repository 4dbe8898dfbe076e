"""What every reader gives: chunks of points, with normals and colours where the file has them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError

NORMAL_NAMES = ("nx", "ny", "nz")
COLOR_NAMES = ("red", "green", "blue")


@dataclass(frozen=True)
class ScanChunk:
    """Some points of a scan, in file order.

    Attributes:
        points: (N, 3) float64, in the file's unit.
        normals: (N, 3) float32 or None.
        colors: (N, 3) uint8 or None.
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float32] | None = None
    colors: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ScanReader:
    """An opened scan.

    Attributes:
        path: the file.
        format: its format's name.
        count: number of points, or None where only reading tells.
        chunks: starts reading from the beginning; memory is bounded by a chunk where the format allows.
        has_normals, has_colors: whether the chunks carry them.
    """

    path: Path
    format: str
    count: int | None
    chunks: Callable[[], Iterator[ScanChunk]]
    has_normals: bool = False
    has_colors: bool = False


def columns_to_chunk(columns: dict[str, NDArray[Any]]) -> ScanChunk:
    """Named columns (x, y, z, nx, ny, nz, red, green, blue; others are ignored) to a chunk.

    Colours of 16 bits are cut to 8; colours as fractions are scaled.
    """
    points = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    normals = colors = None
    if all(name in columns for name in NORMAL_NAMES):
        normals = np.stack([columns[name].astype(np.float32) for name in NORMAL_NAMES], axis=1)
    if all(name in columns for name in COLOR_NAMES):
        colors = np.stack([to_byte(columns[name]) for name in COLOR_NAMES], axis=1)
    return ScanChunk(points, normals, colors)


def to_byte(channel: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour values to 0..255: fractions are scaled, 16 bits are cut to 8, other integers are clipped."""
    if channel.dtype.kind == "u" and channel.dtype.itemsize == 2:
        return np.asarray((channel >> 8).astype(np.uint8))
    if channel.dtype.kind == "f":
        values = np.nan_to_num(channel.astype(np.float64))
        return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return np.asarray(np.clip(channel, 0, 255).astype(np.uint8))


def truncated(path: Path, promised: int, present: int) -> ScanError:
    """The error of a file with fewer points than its header promises."""
    return ScanError(
        f"{path}: is truncated: the header promises {promised:,} points, the file holds {present:,}; "
        "copy or export it again"
    )


def text_rows(
    path: Path, file: BinaryIO, rows: np.dtype[np.void], promised: int, chunk_points: int
) -> Iterator[NDArray[np.void]]:
    """The rows of a text part that a header describes, a chunk at a time.

    Args:
        file: stands at the first row; blank lines are skipped.
        rows: type of a row; promised: number of rows.

    Raises:
        ScanError: if rows are missing or damaged.
    """
    done = 0
    filled = (line for line in file if line.strip())
    while done < promised:
        wanted = min(chunk_points, promised - done)
        lines = list(itertools.islice(filled, wanted))
        try:
            table = np.loadtxt(lines, dtype=rows, comments=None, ndmin=1) if lines else np.empty(0, rows)
        except (ValueError, OverflowError) as error:
            raise ScanError(
                f"{path}: a damaged row after point {done:,} of {promised:,} ({error}); copy or export it again"
            ) from error
        done += len(table)
        if len(lines) < wanted:
            raise truncated(path, promised, done)
        yield table


def binary_rows(
    path: Path, data_start: int, rows: np.dtype[np.void], promised: int, chunk_points: int
) -> Iterator[NDArray[np.void]]:
    """The fixed-size rows of a binary part, a chunk at a time; the file was seen to be long enough.

    Raises:
        ScanError: if the file became shorter meanwhile.
    """
    with path.open("rb") as file:
        file.seek(data_start)
        done = 0
        while done < promised:
            wanted = min(chunk_points, promised - done)
            table = np.fromfile(file, rows, wanted)
            done += len(table)
            if len(table) < wanted:
                raise truncated(path, promised, done)
            yield table
