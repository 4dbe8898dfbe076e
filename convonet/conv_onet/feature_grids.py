"""Point features onto planes and a volume, completed by U-Nets: the half shared by all local encoders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from convonet.conv_onet.coordinates import AXES, Projection
from convonet.conv_onet.unet2d import UNet2D
from convonet.conv_onet.unet3d import UNet3DGroupNorm
from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.scatter import Backend, pool_cells

Grids = dict[Projection, Tensor]


@dataclass(frozen=True)
class GridSizes:
    """What the feature grids of a network are made of.

    Attributes:
        projections: the planes and "grid", in the order in which pooled features are added up.
        plane_resolution: cells along each side of a plane, R.
        volume_resolution: cells along each side of the volume, R.
        unet2d_levels: resolutions of the planes' U-Net; 0 for none.
        unet2d_channels: its channels at the finest resolution.
        unet3d_levels: resolutions of the volume's U-Net; 0 for none.
        unet3d_channels: its channels at the finest resolution.
    """

    projections: tuple[Projection, ...]
    plane_resolution: int
    volume_resolution: int
    unet2d_levels: int
    unet2d_channels: int
    unet3d_levels: int
    unet3d_channels: int

    def resolution(self, projection: Projection) -> int:
        """Cells along each side of the projection."""
        return self.volume_resolution if projection == "grid" else self.plane_resolution


class FeatureGrids(nn.Module):
    """Average point features over cells, write them into dense grids and run the U-Nets.

    Args:
        channels: C, of the point features and of the grids.
        sizes: which grids.
        backend: what averages over cells.
    """

    def __init__(self, channels: int, sizes: GridSizes, backend: Backend = "torch") -> None:
        super().__init__()
        self.sizes = sizes
        self.backend: Backend = backend
        has_planes = any(projection != "grid" for projection in sizes.projections)
        has_volume = "grid" in sizes.projections
        self.unet2d = (
            UNet2D(channels, sizes.unet2d_levels, sizes.unet2d_channels)
            if has_planes and sizes.unet2d_levels
            else None
        )
        self.unet3d = (
            UNet3DGroupNorm(channels, sizes.unet3d_levels, sizes.unet3d_channels)
            if has_volume and sizes.unet3d_levels
            else None
        )

    def forward(
        self,
        features: Tensor,
        cells: Mapping[Projection, OccupiedVoxels],
        batch_size: int,
        resolution: int | None = None,
    ) -> Grids:
        """Completed feature grids.

        Args:
            features: (N, C) features of the points of all items.
            cells: occupied cells of each projection, in flattened (B, R, R) or (B, R, R, R) order.
            batch_size: B.
            resolution: R of all projections, where it is not that of the sizes.

        Returns:
            For each projection (B, C, R, R) or (B, C, R, R, R), the first coordinate last.
        """
        grids: Grids = {}
        for projection in self.sizes.projections:
            side = self.sizes.resolution(projection) if resolution is None else resolution
            pooled = pool_cells(features, cells[projection], "mean", self.backend)
            shape = (batch_size, *(len(AXES[projection]) * [side]))
            grid = dense_grid(pooled, cells[projection].flat_index, shape)
            unet = self.unet3d if projection == "grid" else self.unet2d
            grids[projection] = grid if unet is None else unet(grid)
        return grids


def dense_grid(pooled: Tensor, flat_index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Write (V, C) features of distinct cells (V,) of the flattened array of a shape (B, R, ..., R) into zeros.

    Returns:
        (B, C, R, ..., R), channels last in memory.
    """
    channels = pooled.shape[1]
    dense = pooled.new_zeros(math.prod(shape), channels).index_copy(0, flat_index, pooled)
    return dense.view(*shape, channels).movedim(-1, 1)
