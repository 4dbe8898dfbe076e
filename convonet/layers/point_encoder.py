"""Points of a crop to features of its occupied voxels (Peng et al. 2020, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.resnet_block import resnet_blocks

SHEET_VOXELS = 3.0  # thickness of the solid behind a surface seen from one side


@dataclass(frozen=True)
class PointHints:
    """What is known of points beside their positions.

    Attributes:
        directions: (N, 3) unit vectors to the free side of each point, zero where unknown.
        sheets: (N,) voxels after which the solid behind a surface seen from one side ends: `SHEET_VOXELS` at the finest
            level of a pyramid, half of that at each coarser one, so that all mean the same thickness.
    """

    directions: Tensor
    sheets: Tensor

    def as_rows(self) -> Tensor:
        """(N, 4), zero for points of which nothing is known at the finest level."""
        return torch.cat([self.directions, 1 - self.sheets[:, None] / SHEET_VOXELS], dim=1)


class VoxelPointNet(nn.Module):
    """A shallow PointNet that max-pools inside each voxel between its residual blocks.

    Points enter as offsets from their voxel's center, never as absolute positions: moving the crop by
    whole voxels moves the features with it, which is what lets neighboring crops agree.

    Args:
        feature_size, hidden_size, blocks: widths, and number of residual blocks.
        has_hints: whether the network takes directions to the free side of points, and the thickness of sheets. Their
            layers start at 0, so weights trained without them stay right.
    """

    def __init__(self, feature_size: int, hidden_size: int, blocks: int, has_hints: bool) -> None:
        super().__init__()
        self.fc_position = nn.Linear(3, 2 * hidden_size)
        self.fc_hints = nn.Linear(4, 2 * hidden_size, bias=False) if has_hints else None
        if self.fc_hints is not None:
            nn.init.zeros_(self.fc_hints.weight)
        self.blocks = resnet_blocks(blocks, 2 * hidden_size, hidden_size)
        self.fc_density = nn.Linear(1, hidden_size)
        self.fc_feature = nn.Linear(hidden_size, feature_size)

    def forward(self, points: Tensor, voxels: OccupiedVoxels, hints: PointHints | None = None) -> Tensor:
        """Encode points.

        Args:
            points: (N, 3) x, y, z in voxel units of the crop.
            voxels: their occupied voxels.
            hints: what is known of the points beside their positions; ignored by networks that take none.

        Returns:
            (V, C) one feature for each occupied voxel.
        """
        offsets = 2 * (points - torch.floor(points)) - 1
        x = self.fc_position(offsets)
        if self.fc_hints is not None and hints is not None:
            x = x + self.fc_hints(hints.as_rows())
        x = self.blocks[0](x)
        for block in list(self.blocks)[1:]:
            pooled = voxels.to_points(voxels.max(x))
            x = block(torch.cat([x, pooled], dim=1))
        mean = voxels.mean(x)
        density = self.fc_density(torch.log(voxels.point_counts)[:, None].to(mean.dtype))
        return self.fc_feature(mean + density)  # type: ignore[no-any-return]
