"""What every reader gives: chunks of points, with normals and colours where the file has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    """

    path: Path
    format: str
    count: int | None
    chunks: Callable[[], Iterator[ScanChunk]]


def columns_to_chunk(columns: dict[str, NDArray[np.generic]]) -> ScanChunk:
    """Named columns (x, y, z, nx, ny, nz, red, green, blue; others are ignored) to a chunk.

    Colours of 16 bits are cut to 8; colours as fractions are scaled.
    """
    points = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    normals = colors = None
    if all(name in columns for name in ("nx", "ny", "nz")):
        normals = np.stack([columns[name].astype(np.float32) for name in ("nx", "ny", "nz")], axis=1)
    if all(name in columns for name in ("red", "green", "blue")):
        colors = np.stack([_to_byte(columns[name]) for name in ("red", "green", "blue")], axis=1)
    return ScanChunk(points, normals, colors)


def _to_byte(channel: NDArray[Any]) -> NDArray[np.uint8]:
    if channel.dtype == np.uint16:
        return np.asarray((channel >> 8).astype(np.uint8))
    if channel.dtype.kind == "f":
        values = np.nan_to_num(channel.astype(np.float64))
        return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return np.asarray(channel.astype(np.uint8))
