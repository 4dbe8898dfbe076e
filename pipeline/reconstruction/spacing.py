"""The point spacing of a scan, from which the voxel size follows when the user names none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

NEIGHBOURS = 8
PROBES = 4096
VOXELS_PER_SPACING = 3.0  # about nine points on each voxel of an evenly scanned surface


def median_spacing(chunks: Iterable[NDArray[np.float64]], probes: NDArray[np.float64]) -> float:
    """Median distance between neighbouring points, as the side of the square that one point stands for.

    The eighth nearest of a probe's neighbours at distance r means 8 points on a disc of area pi r^2.
    Points at a probe's own position do not count, so repeated scans of one spot change nothing.

    Args:
        chunks: the whole scan, in pieces (N, 3); memory is bounded by one piece.
        probes: (P, 3) points of the scan at which to look.

    Returns:
        metres; 0 where fewer than nine distinct points exist.
    """
    best = np.full((len(probes), NEIGHBOURS), np.inf)
    for points in chunks:
        count = min(2 * NEIGHBOURS, len(points))
        found, _ = cKDTree(points).query(probes, k=range(1, count + 1), workers=-1)
        found[found == 0] = np.inf
        best = np.sort(np.concatenate([best, found], axis=1), axis=1)[:, :NEIGHBOURS]
    radius = best[:, -1]
    radius = radius[np.isfinite(radius)]
    return float(np.median(radius) * np.sqrt(np.pi / NEIGHBOURS)) if len(radius) else 0.0
