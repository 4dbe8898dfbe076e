"""Observed or guessed: what the scan says of each vertex of the mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUPPORTING_POINTS = 3  # the confidence asks how near so many points are
NEAREST_VOXELS, FARTHEST_VOXELS = 2.0, 4.0  # the first and the last of them add nothing from here on
LARGEST_DISTANCE = 1e3  # voxels; stands for no point at all


@dataclass(frozen=True)
class VertexSupport:
    """How the scan's points support vertices.

    Attributes:
        distances: (V,) float32 voxels to the nearest point.
        confidence: (V,) float32 from 0, guessed, to 1, on several points.
        colors: (V, 3) uint8 of the nearest point; None where the scan has none.
    """

    distances: NDArray[np.float32]
    confidence: NDArray[np.float32]
    colors: NDArray[np.uint8] | None


def confidence(nearest: NDArray[np.float64], farther: NDArray[np.float64]) -> NDArray[np.float32]:
    """Confidence (V,) from the distances in voxels to the nearest point and to the last of `SUPPORTING_POINTS`."""
    near = np.clip(1 - nearest / NEAREST_VOXELS, 0, 1)
    many = np.clip(1 - farther / FARTHEST_VOXELS, 0, 1)
    return np.asarray(np.sqrt(near * many), np.float32)
