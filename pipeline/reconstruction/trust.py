"""How far a level of the pyramid is believed: fully near the scan's points, not at all far from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.reconstruction.coarse_field import sample_grid

# By steps of a voxel from the nearest occupied one; the sheet behind a surface seen from one side ends at 3.
TRUST_BY_DISTANCE = (1.0, 1.0, 1.0, 0.5, 0.0)


class Trust:
    """Weight of a level against the coarser one, from which voxels of a crop hold points, and from nothing else.

    Args:
        points: (N, 3) in voxels of the crop, inside it.
        shape: voxels of the crop along x, y, z.
    """

    def __init__(self, points: NDArray[np.float64], shape: tuple[int, int, int]) -> None:
        reached = np.zeros(shape, np.bool_)
        reached[tuple(np.floor(points).astype(np.int64).T)] = True
        self._weights = np.full(shape, TRUST_BY_DISTANCE[0], np.float32)
        for step in range(len(TRUST_BY_DISTANCE) - 1):
            if step:
                reached = _grown(reached, along_diagonals=step % 2 == 0)
            self._weights[~reached] = TRUST_BY_DISTANCE[step + 1]

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Weights (N,) in [0, 1] at positions (N, 3) in voxels of the crop."""
        return sample_grid(self._weights, positions - 0.5)


def _grown(cells: NDArray[np.bool_], along_diagonals: bool) -> NDArray[np.bool_]:
    """Cells and their neighbors: alternating both kinds of steps makes distances nearly round."""
    result = cells.copy()
    for axis in range(3):
        source = np.moveaxis(result.copy() if along_diagonals else cells, axis, 0)
        target = np.moveaxis(result, axis, 0)
        target[1:] |= source[:-1]
        target[:-1] |= source[1:]
    return result
