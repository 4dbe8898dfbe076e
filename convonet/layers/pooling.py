"""Local pooling of point features over the voxels that hold points.

Only occupied voxels exist here: they are found once for a crop by sorting, and every pooling step
then works on arrays as long as their number. No scatter extension and no dense grid are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OccupiedVoxels:
    """The voxels of a batch of crops that hold at least one point.

    Attributes:
        flat_index: (V,) int64 index of each occupied voxel in the flattened (B, D, H, W) grid, sorted.
        voxel_of_point: (N,) int64 position of each point's voxel in `flat_index`.
        point_counts: (V,) float32 number of points in each occupied voxel.
    """

    flat_index: Tensor
    voxel_of_point: Tensor
    point_counts: Tensor

    @classmethod
    def of_points(
        cls, points: Tensor, batch_index: Tensor, grid_shape: tuple[int, int, int]
    ) -> OccupiedVoxels:
        """Find the occupied voxels.

        Args:
            points: (N, 3) float, x, y, z in voxel units of the crop; voxel (0, 0, 0) spans [0, 1).
            batch_index: (N,) int64 crop of each point.
            grid_shape: (D, H, W), the number of voxels along z, y, x.

        Raises:
            ValueError: if a point lies outside the grid.
        """
        depth, height, width = grid_shape
        cells = torch.floor(points).long()
        limits = torch.tensor([width, height, depth], device=points.device)
        if points.numel() and bool(((cells < 0) | (cells >= limits)).any()):
            raise ValueError(f"points outside the crop's grid {grid_shape} (z, y, x)")
        flat = ((batch_index * depth + cells[:, 2]) * height + cells[:, 1]) * width + cells[:, 0]
        return cls.of_cells(flat)

    @classmethod
    def of_cells(cls, flat: Tensor) -> OccupiedVoxels:
        """Find them from the (N,) int64 cell of each point among the cells of all items."""
        flat_index, voxel_of_point, counts = torch.unique(flat, return_inverse=True, return_counts=True)
        return cls(flat_index, voxel_of_point, counts.float())

    def mean(self, features: Tensor) -> Tensor:
        """Mean of (N, C) point features over each voxel: (V, C)."""
        sums = features.new_zeros(len(self.flat_index), features.shape[1])
        sums = sums.index_add(0, self.voxel_of_point, features)
        return sums / self.point_counts.to(features.dtype)[:, None]

    def max(self, features: Tensor) -> Tensor:
        """Maximum of (N, C) point features over each voxel: (V, C)."""
        index = self.voxel_of_point[:, None].expand_as(features)
        start = features.new_zeros(len(self.flat_index), features.shape[1])
        return start.scatter_reduce(0, index, features, reduce="amax", include_self=False)

    def to_points(self, voxel_features: Tensor) -> Tensor:
        """Give every point the (V, C) features of its voxel: (N, C)."""
        return voxel_features.index_select(0, self.voxel_of_point)
