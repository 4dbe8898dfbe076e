"""Points of a crop to features of its occupied voxels (Peng et al. 2020, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.pooling import OccupiedVoxels
from convonet.resnet_block import ResnetBlockFC


class LocalPoolPointNet(nn.Module):
    """A shallow PointNet that max-pools inside each voxel between its residual blocks.

    Points enter as offsets from their voxel's centre, never as absolute positions: moving the crop by
    whole voxels moves the features with it, which is what lets neighbouring crops agree.
    """

    def __init__(self, feature_size: int, hidden_size: int, blocks: int) -> None:
        super().__init__()
        self.fc_position = nn.Linear(3, 2 * hidden_size)
        self.blocks = nn.ModuleList(
            ResnetBlockFC(2 * hidden_size, hidden_size, hidden_size) for _ in range(blocks)
        )
        self.fc_density = nn.Linear(1, hidden_size)
        self.fc_feature = nn.Linear(hidden_size, feature_size)

    def forward(self, points: Tensor, voxels: OccupiedVoxels) -> Tensor:
        """Encode points.

        Args:
            points: (N, 3) x, y, z in voxel units of the crop.
            voxels: their occupied voxels.

        Returns:
            (V, C) one feature for each occupied voxel.
        """
        offsets = 2 * (points - torch.floor(points)) - 1
        x = self.fc_position(offsets)
        x = self.blocks[0](x)
        for block in list(self.blocks)[1:]:
            pooled = voxels.to_points(voxels.max(x))
            x = block(torch.cat([x, pooled], dim=1))
        mean = voxels.mean(x)
        density = self.fc_density(torch.log(voxels.point_counts)[:, None].to(mean.dtype))
        return self.fc_feature(mean + density)  # type: ignore[no-any-return]
