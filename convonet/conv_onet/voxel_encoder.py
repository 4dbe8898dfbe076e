"""An occupancy grid to feature planes or a volume, for super-resolution of voxels (Peng et al. 2020, 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.conv_onet.feature_grids import FeatureGrids, Grids, GridSizes
from convonet.conv_onet.pooled_encoder import object_cells
from convonet.layers.scatter import Backend


class LocalVoxelEncoder(nn.Module):
    """One 3D convolution; then every voxel is a point at its corner of a grid that spans the unit cube.

    Args:
        feature_size: C, channels of the grids.
        kernel_size: of the convolution, 1 or 3.
        sizes: which grids.
        padding: width added to the unit cube.
        backend: what averages over cells.

    Raises:
        ValueError: if the kernel size is neither 1 nor 3.
    """

    def __init__(
        self,
        feature_size: int,
        kernel_size: int,
        sizes: GridSizes,
        padding: float,
        backend: Backend = "torch",
    ) -> None:
        super().__init__()
        if kernel_size not in (1, 3):
            raise ValueError(f"kernel_size must be 1 or 3, not {kernel_size}")
        self.padding = padding
        self.conv_in = nn.Conv3d(1, feature_size, kernel_size, padding=kernel_size // 2)
        self.grids = FeatureGrids(feature_size, sizes, backend)

    def forward(self, voxels: Tensor) -> Grids:
        """Encode a batch of occupancy grids.

        Args:
            voxels: (B, D, H, W) float of 0 and 1; the three axes are x, y, z.

        Returns:
            For each projection (B, C, R, R) or (B, C, R, R, R), the first coordinate last.
        """
        features = torch.relu(self.conv_in(voxels[:, None])).flatten(2).transpose(1, 2)
        axes = [torch.linspace(-0.5, 0.5, side, device=voxels.device) for side in voxels.shape[1:]]
        corners = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(1, -1, 3)
        cells = object_cells(corners.expand(len(voxels), -1, -1), self.grids.sizes, self.padding)
        return self.grids(features.flatten(0, 1), cells, len(voxels))  # type: ignore[no-any-return]
