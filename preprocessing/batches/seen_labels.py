"""The rule for what nobody saw, applied to labels.

Behind a surface seen from one side the solid ends after `SHEET_VOXELS`; everything else unseen is free. (Space enclosed
by seen surfaces is solid; scenes in which that differs from the rule here are labeled by what made them.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHEET_VOXELS = 3.0
UNSURE_VOXELS = 2  # beyond which the rule holds again; between, the voxel grid is too coarse to say


@dataclass(frozen=True)
class SeenVoxels:
    """Where a crop's surface was seen: voxels of a cube around it.

    Attributes:
        near: within the thickness of a sheet of a seen point; beside: some voxels more.
    """

    near: NDArray[np.bool_]
    beside: NDArray[np.bool_]

    @classmethod
    def of_points(cls, points: NDArray[np.float32], side: int) -> SeenVoxels:
        """From all seen points (N, 3) of a crop of `side` voxels."""
        seen = np.zeros((side, side, side), np.bool_)
        cells = np.clip(np.floor(points).astype(np.int64), 0, side - 1)
        seen[tuple(cells.T)] = True
        near = _grown(seen, round(SHEET_VOXELS))
        return cls(near, _grown(near, UNSURE_VOXELS))

    def labels(
        self, queries: NDArray[np.float32], distances: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Labels after the rule, and which of them are certain.

        Args:
            queries: (N, 3) inside the crop; distances: (N,) of the true solid, voxels, negative inside.
        """
        cells = tuple(np.floor(queries).astype(np.int64).T)
        near, beside = self.near[cells], self.beside[cells]
        is_certain = near | ~beside | (distances > SHEET_VOXELS)
        free = np.maximum(distances, np.float32(2 * SHEET_VOXELS))
        return np.where(near, distances, free), is_certain


def _grown(cells: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """A set of voxels and all within some steps along axes and diagonals."""
    for _ in range(steps):
        for axis in range(3):
            wide = cells.copy()
            moved, source = np.moveaxis(wide, axis, 0), np.moveaxis(cells, axis, 0)
            moved[1:] |= source[:-1]
            moved[:-1] |= source[1:]
            cells = wide
    return cells
