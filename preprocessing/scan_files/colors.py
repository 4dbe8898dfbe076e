"""One scale for the colors of a whole file, decided from their type and the largest value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_FRACTION = 1.0 + 1e-6
SAMPLE_BLOCKS, SAMPLE_ROWS = 64, 2048  # drawn evenly from a file; smaller files are looked at whole


@dataclass(frozen=True)
class ColorScale:
    """Brings stored color values to bytes.

    Attributes:
        divisor: 1 for bytes, 256 for 16 bits (right for v * 256 as for v * 257), 1/255 for fractions.
    """

    divisor: float

    def apply(self, channels: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
        """(N, 3) bytes of three channels; NaN becomes 0, what lies outside the range is clipped."""
        out = np.empty((len(channels[0]), 3), np.uint8)
        for column, channel in enumerate(channels):
            values = np.asarray(channel, np.float64) / self.divisor
            values = np.floor(values) if self.divisor > 1 else np.rint(values)
            out[:, column] = np.clip(np.nan_to_num(values, posinf=255, neginf=0), 0, 255)
        return out


BYTES = ColorScale(1.0)


def decide_scale(channels: Sequence[NDArray[Any]], declared: str | None = None) -> ColorScale | None:
    """The scale of a file's colors, or None where they are none.

    Args:
        channels: red, green and blue values from all over the file.
        declared: 'u1' for bytes by their type, 'whole' for wider whole numbers, else None: what may be fractions.

    Returns:
        None if all are zero or nothing, if some are negative, or if they exceed 16 bits.
    """
    values = np.concatenate([np.asarray(channel, np.float64).ravel() for channel in channels])
    values = values[np.isfinite(values)]
    if not len(values) or values.min() < 0 or not values.any():
        return None
    largest = float(values.max())
    if declared == "u1":
        return BYTES if largest <= 255 else None
    if largest <= LARGEST_FRACTION and declared != "whole":
        return ColorScale(1.0 / 255.0)
    if largest <= 255:
        return BYTES
    return ColorScale(256.0) if largest <= 65_535 else None


PACKED_NAMES, _PACKED_BYTES = ("rgb", "rgba"), 4


def packed_column(kinds: Mapping[str, str]) -> str | None:
    """The column that holds colors as the bytes of one number, as the Point Cloud Library packs them, or None.

    Args:
        kinds: numpy type of each column that holds one value, by name.
    """
    return next(
        (
            name
            for name, kind in kinds.items()
            if name.lower() in PACKED_NAMES and np.dtype(kind).itemsize == _PACKED_BYTES
        ),
        None,
    )


def unpacked(values: NDArray[Any], kind: str) -> dict[str, NDArray[np.uint32]]:
    """Red, green and blue bytes of packed colors (N,).

    Args:
        values: in the type that they are stored in, or as real numbers read from text.
        kind: numpy type of the column.
    """
    if values.dtype.itemsize == _PACKED_BYTES:
        native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        bits = np.asarray(native.view(np.uint32))
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            if np.dtype(kind).kind == "f":
                bits = values.astype(np.float32).view(np.uint32)
            else:
                bits = (np.nan_to_num(values).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
    return {
        name: np.asarray((bits >> shift) & 255, np.uint32)
        for name, shift in zip(("red", "green", "blue"), (16, 8, 0), strict=True)
    }


def declared_by(kinds: Iterable[str]) -> str | None:
    """What the numpy types of three channels declare to `decide_scale`."""
    types = [np.dtype(kind) for kind in kinds]
    if all(kind.str[1:] == "u1" for kind in types):
        return "u1"
    return "whole" if all(kind.kind in "iu" for kind in types) else None


def sample_starts(count: int) -> list[int]:
    """First rows of the blocks of `SAMPLE_ROWS` to look at, evenly over `count` rows."""
    if count <= SAMPLE_BLOCKS * SAMPLE_ROWS:
        return list(range(0, count, SAMPLE_ROWS))
    return [int(start) for start in np.linspace(0, count - SAMPLE_ROWS, SAMPLE_BLOCKS)]
