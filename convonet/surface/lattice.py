"""The scene lattice: integer points, their 64-bit keys, and the keys of surface vertices.

Everything that neighboring tiles must agree on is addressed by lattice integers. A key packs 20 bits per
axis, so coordinates run from -2^19 to 2^19 - 1: with 5 cm voxels and two lattice cells per voxel, a scene
26 km wide. Keys are ordered as the points are, lexicographically by x, then y, then z (x-major).

A surface vertex sits on a lattice edge. Its key appends two bits to the key of the edge's lower point: 0,
1, 2 for an edge along x, y, z. 62 bits in all, so every key is a non-negative int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.errors import SettingError

BITS = 20
HALF_RANGE = 1 << (BITS - 1)

_MASK = (1 << BITS) - 1
_SHIFTS = np.array([2 * BITS, BITS, 0], dtype=np.int64)


@dataclass(frozen=True)
class Lattice:
    """Where lattice point (0, 0, 0) lies and how far apart the points are.

    Args:
        origin: world position of lattice point (0, 0, 0), meters.
        spacing: meters between neighboring lattice points.
    """

    origin: tuple[float, float, float]
    spacing: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.spacing) and self.spacing > 0):
            raise ValueError(f"lattice spacing must be positive and finite, got {self.spacing}")
        if len(self.origin) != 3 or not np.all(np.isfinite(self.origin)):
            raise ValueError(f"lattice origin must be three finite numbers, got {self.origin}")

    def world(self, ijk: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        """World positions (N, 3) float64 of lattice positions (N, 3), whole or fractional."""
        positions: NDArray[np.float64] = np.asarray(self.origin, dtype=np.float64) + self.spacing * ijk
        return positions


def pack(ijk: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys of lattice points.

    Args:
        ijk: (N, 3) integer lattice coordinates within [-2^19, 2^19).

    Returns:
        (N,) int64 keys in [0, 2^60), ordered as the points are lexicographically.

    Raises:
        ValueError: if a coordinate is not an integer.
        SettingError: if one falls outside the range.
    """
    points = np.asarray(ijk)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"lattice points must have shape (N, 3), got {points.shape}")
    if not np.issubdtype(points.dtype, np.integer):
        raise ValueError(f"lattice points must be integers, got {points.dtype}")
    if len(points) and (points.min() < -HALF_RANGE or points.max() >= HALF_RANGE):
        raise SettingError(
            f"lattice coordinates must lie in [{-HALF_RANGE}, {HALF_RANGE}), got {points.min()} to "
            f"{points.max()}: the scene is too wide for its spacing; use a larger voxel size"
        )
    x, y, z = (points[:, axis].astype(np.int64) + HALF_RANGE for axis in range(3))
    keys: NDArray[np.int64] = (x << (2 * BITS)) | (y << BITS) | z
    return keys


def unpack(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lattice points (N, 3) int64 of keys (N,) made by `pack`."""
    points: NDArray[np.int64] = ((keys[:, None] >> _SHIFTS) & _MASK) - HALF_RANGE
    return points


def key_step(offset: tuple[int, ...]) -> int:
    """What to add to the key of a point to get the key of the point `offset` away (both in range)."""
    return (offset[0] << (2 * BITS)) + (offset[1] << BITS) + offset[2]


def unpack_vertex(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lower lattice points (N, 3) int64 and axes (N,) int64 of the edges of vertex keys (N,)."""
    return unpack(keys >> 2), keys & 3


def is_first(ordered: NDArray[np.integer]) -> NDArray[np.bool_]:
    """True where a sorted array (N,) shows a value for the first time."""
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first
