"""Points of an object to feature planes and volumes, pooling locally between its residual blocks."""

from __future__ import annotations

from torch import Tensor, nn

from convonet.conv_onet.coordinates import Projection, cell_index, flat_cell_index, normalize_coordinate
from convonet.conv_onet.feature_grids import FeatureGrids, Grids, GridSizes
from convonet.layers.pooled_trunk import LocalPoolTrunk
from convonet.layers.pooling import OccupiedVoxels


class LocalPoolPointnet(nn.Module):
    """The point encoder of Peng et al. 2020, section 3.1, for objects in the unit cube.

    Args:
        trunk: from points to their features.
        grids: where these go.
        padding: width added to the unit cube.
    """

    def __init__(self, trunk: LocalPoolTrunk, grids: FeatureGrids, padding: float) -> None:
        super().__init__()
        self.trunk, self.grids, self.padding = trunk, grids, padding

    def forward(self, points: Tensor) -> Grids:
        """Encode a batch of clouds.

        Args:
            points: (B, N, 3) x, y, z in the unit cube centered at 0; those outside its padding pool into the
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
        found[projection] = OccupiedVoxels.of_cells(flat_cell_index(index, resolution, projection))
    return found
