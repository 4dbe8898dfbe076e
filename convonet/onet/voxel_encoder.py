"""Voxel encoder: a 32^3 occupancy grid to one feature vector (Mescheder et al. 2019, supplement 1.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

GRID_SIDE = 32


class VoxelEncoder(nn.Module):
    """Five 3D convolutions, four of them halving the grid, and a linear layer over the 2^3 cells left.

    The original's `voxel_simple`, whose first layer has 32 channels; channels double with each halving.
    """

    def __init__(self, feature_size: int, first_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv3d(1, first_channels, 3, padding=1)
        widths = [first_channels * 2**level for level in range(5)]
        self.convs = nn.ModuleList(
            nn.Conv3d(narrow, wide, 3, padding=1, stride=2) for narrow, wide in pairwise(widths)
        )
        self.fc = nn.Linear(widths[-1] * 2**3, feature_size)

    def forward(self, voxels: Tensor) -> Tensor:
        """(B, 32, 32, 32) occupancies 0 or 1, indexed x, y, z, to (B, feature_size) features.

        Raises:
            ValueError: if the grid is not 32^3.
        """
        if voxels.shape[1:] != (GRID_SIDE,) * 3:
            raise ValueError(f"voxels must be (B, 32, 32, 32), not {tuple(voxels.shape)}")
        x = self.conv_in(voxels[:, None])
        for conv in self.convs:
            x = conv(torch.relu(x))
        return self.fc(torch.relu(x.flatten(1)))  # type: ignore[no-any-return]
