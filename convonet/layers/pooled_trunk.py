"""A point network that pools locally between its residual blocks (Peng et al. 2020, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.resnet_block import resnet_blocks
from convonet.layers.scatter import Backend, Pooling, pool_cells


class LocalPoolTrunk(nn.Module):
    """A shallow PointNet whose blocks see, beside each point, the pool of the points in its cell.

    Where points lie on several grids, the pools of all grids are added.

    Args:
        position_size: width of a point's coordinates.
        feature_size: width of the result.
        hidden_size: width of the blocks.
        blocks: how many.
        pooling: reduction over a cell between blocks.
        backend: what reduces.
    """

    def __init__(
        self,
        position_size: int,
        feature_size: int,
        hidden_size: int,
        blocks: int,
        pooling: Pooling,
        backend: Backend,
    ) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.backend: Backend = backend
        self.fc_pos = nn.Linear(position_size, 2 * hidden_size)
        self.blocks = resnet_blocks(blocks, 2 * hidden_size, hidden_size)
        self.fc_c = nn.Linear(hidden_size, feature_size)

    def forward(self, positions: Tensor, grids: Iterable[OccupiedVoxels]) -> Tensor:
        """(N, position_size) coordinates and the occupied cells of each grid to (N, feature_size)."""
        every_grid = list(grids)
        x = self.blocks[0](self.fc_pos(positions))
        for block in list(self.blocks)[1:]:
            pooled = torch.zeros_like(x)
            for cells in every_grid:
                pooled = pooled + cells.to_points(pool_cells(x, cells, self.pooling, self.backend))
            x = block(torch.cat([x, pooled], dim=1))
        return self.fc_c(x)  # type: ignore[no-any-return]
