"""Features sampled at a query to its occupancy logit (Peng et al. 2020, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convonet.conv_onet.coordinates import (
    PositionEncoding,
    local_coordinates,
    normalize_coordinate,
    normalize_in_bounds,
)
from convonet.conv_onet.feature_grids import Grids
from convonet.conv_onet.patch_encoder import CropFeatures
from convonet.layers.resnet_block import resnet_blocks

Sampling = Literal["linear", "nearest"]


def sample_grid(grid: Tensor, normalized: Tensor, sampling: Sampling) -> Tensor:
    """Read a feature grid at continuous positions.

    Args:
        grid: (B, C, R, R) or (B, C, R, R, R), the first coordinate last.
        normalized: (B, Q, 2) or (B, Q, 3) in [0, 1]; 0 and 1 are the CENTRES of the outermost cells, although
            points were binned with 0 and 1 at their outer faces. Trained weights rely on it.
        sampling: "linear" (bilinear or trilinear) or "nearest".

    Returns:
        (B, Q, C); positions outside [0, 1] take the border's value.
    """
    batch, queries, dims = normalized.shape
    dtype = torch.promote_types(grid.dtype, normalized.dtype)  # positions in half precision would miss cells
    where = (2 * normalized - 1).view(batch, queries, *([1] * (dims - 1)), dims).to(dtype)
    mode = "bilinear" if sampling == "linear" else "nearest"
    sampled = F.grid_sample(grid.to(dtype), where, mode=mode, padding_mode="border", align_corners=True)
    return sampled.flatten(2).transpose(1, 2)


class ConditionedBlocks(nn.Module):
    """Residual blocks on the query's coordinates; its feature is added before each.

    Args:
        position_size: width of the coordinates.
        feature_size: width of the features.
        hidden_size: width of the blocks.
        blocks: how many.
    """

    def __init__(self, position_size: int, feature_size: int, hidden_size: int, blocks: int) -> None:
        super().__init__()
        self.fc_p = nn.Linear(position_size, hidden_size)
        self.fc_c = nn.ModuleList(nn.Linear(feature_size, hidden_size) for _ in range(blocks))
        self.blocks = resnet_blocks(blocks, hidden_size, hidden_size)
        self.fc_out = nn.Linear(hidden_size, 1)

    def forward(self, positions: Tensor, features: Tensor) -> Tensor:
        """(B, Q, position_size) and (B, Q, feature_size) to logits (B, Q)."""
        x = self.fc_p(positions)
        for fc_c, block in zip(self.fc_c, self.blocks, strict=True):
            x = block(x + fc_c(features))
        return self.fc_out(torch.relu(x)).squeeze(-1)  # type: ignore[no-any-return]


class LocalDecoder(nn.Module):
    """The decoder of objects in the unit cube: features of all grids are added.

    Args:
        head: from positions and features to logits.
        padding: width added to the unit cube.
        sampling: how grids are read between cell centers.
    """

    def __init__(self, head: ConditionedBlocks, padding: float, sampling: Sampling = "linear") -> None:
        super().__init__()
        self.head, self.padding = head, padding
        self.sampling: Sampling = sampling

    def forward(self, queries: Tensor, grids: Grids) -> Tensor:
        """(B, Q, 3) queries in the unit cube and the encoder's grids to logits (B, Q)."""
        sampled = [
            sample_grid(grid, normalize_coordinate(queries, projection, self.padding), self.sampling)
            for projection, grid in grids.items()
        ]
        return self.head(queries, torch.stack(sampled).sum(dim=0))  # type: ignore[no-any-return]


class PatchLocalDecoder(nn.Module):
    """The decoder of crops: grids fill the crop's box, coordinates are relative to voxels.

    Args:
        head: from positions and features to logits.
        unit_size: side of a voxel in scene units; None for absolute coordinates.
        encoding: of the coordinates inside a voxel; "sin_cos" needs a unit size.
        sampling: how grids are read between cell centers.
    """

    def __init__(
        self,
        head: ConditionedBlocks,
        unit_size: float | None,
        encoding: PositionEncoding = "linear",
        sampling: Sampling = "linear",
    ) -> None:
        super().__init__()
        self.head, self.unit_size = head, unit_size
        self.encoding: PositionEncoding = encoding
        self.sampling: Sampling = sampling

    def forward(self, queries: Tensor, crops: CropFeatures) -> Tensor:
        """(B, Q, 3) queries in scene units, inside the crops' boxes, to logits (B, Q)."""
        sampled = [
            sample_grid(
                grid, normalize_in_bounds(queries, crops.lower, crops.upper, projection), self.sampling
            )
            for projection, grid in crops.grids.items()
        ]
        positions = queries
        if self.unit_size is not None:
            positions = local_coordinates(queries, self.unit_size, self.encoding)
        return self.head(positions, torch.stack(sampled).sum(dim=0))  # type: ignore[no-any-return]
