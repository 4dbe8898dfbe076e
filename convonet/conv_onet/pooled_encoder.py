"""Points of an object to feature planes and volumes, pooling locally between its residual blocks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from convonet.conv_onet.coordinates import Projection, cell_index, flat_cell_index, normalize_coordinate
from convonet.conv_onet.feature_grids import FeatureGrids, Grids, GridSizes
from convonet.conv_onet.scatter import Backend, Pooling, cell_max, cell_mean, occupied_cells
from convonet.pooling import OccupiedVoxels
from convonet.resnet_block import ResnetBlockFC


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
        self.pooling = pooling
        self.backend = backend
        self.fc_pos = nn.Linear(position_size, 2 * hidden_size)
        self.blocks = nn.ModuleList(
            ResnetBlockFC(2 * hidden_size, hidden_size, hidden_size) for _ in range(blocks)
        )
        self.fc_c = nn.Linear(hidden_size, feature_size)

    def forward(self, positions: Tensor, grids: Iterable[OccupiedVoxels]) -> Tensor:
        """(N, position_size) coordinates and the occupied cells of each grid to (N, feature_size)."""
        every_grid = list(grids)
        pool = cell_max if self.pooling == "max" else cell_mean
        x = self.blocks[0](self.fc_pos(positions))
        for block in list(self.blocks)[1:]:
            pooled = torch.zeros_like(x)
            for cells in every_grid:
                pooled = pooled + cells.to_points(pool(x, cells, self.backend))
            x = block(torch.cat([x, pooled], dim=1))
        return self.fc_c(x)  # type: ignore[no-any-return]


class LocalPoolPointnet(nn.Module):
    """The point encoder of Peng et al. 2020, section 3.1, for objects in the unit cube.

    Args:
        feature_size: C, channels of the grids.
        hidden_size: width of the trunk.
        blocks: residual blocks of the trunk.
        sizes: which grids.
        padding: width added to the unit cube.
        pooling: reduction over a cell between blocks.
        backend: what reduces over cells.
    """

    def __init__(
        self,
        feature_size: int,
        hidden_size: int,
        blocks: int,
        sizes: GridSizes,
        padding: float,
        pooling: Pooling = "max",
        backend: Backend = "torch",
    ) -> None:
        super().__init__()
        self.padding = padding
        self.trunk = LocalPoolTrunk(3, feature_size, hidden_size, blocks, pooling, backend)
        self.grids = FeatureGrids(feature_size, sizes, backend)

    def forward(self, points: Tensor) -> Grids:
        """Encode a batch of clouds.

        Args:
            points: (B, N, 3) x, y, z in the unit cube centred at 0; those outside its padding pool into the
                nearest cells of its border.

        Returns:
            For each projection (B, C, R, R) or (B, C, R, R, R).
        """
        cells = object_cells(points, self.grids.sizes, self.padding)
        features = self.trunk(points.flatten(0, 1), cells.values())
        return self.grids(features, cells, len(points))  # type: ignore[no-any-return]


def object_cells(points: Tensor, sizes: GridSizes, padding: float) -> dict[Projection, OccupiedVoxels]:
    """Occupied cells of every projection of (B, N, 3) points in the unit cube."""
    found: dict[Projection, OccupiedVoxels] = {}
    for projection in sizes.projections:
        resolution = sizes.resolution(projection)
        index = cell_index(normalize_coordinate(points, projection, padding), resolution)
        found[projection] = occupied_cells(flat_cell_index(index, resolution, projection))
    return found
