"""Points of a crop to its feature grids, in a box that comes with the data (Peng et al. 2020, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convonet.conv_onet.coordinates import (
    AXES,
    PositionEncoding,
    Projection,
    cell_index,
    flat_cell_index,
    local_coordinates,
    normalize_in_bounds,
)
from convonet.conv_onet.feature_grids import FeatureGrids, Grids
from convonet.layers.pooled_trunk import LocalPoolTrunk
from convonet.layers.pooling import OccupiedVoxels


@dataclass(frozen=True)
class CropInputs:
    """Points of a batch of crops and where they fall.

    Attributes:
        points: (B, N, 3) x, y, z in scene units, float32.
        index: for each projection (B, N) int64 cells, R**2 or R**3 for a point outside the crop's box, which
            then takes no part in the grids. The first axis of the projection varies fastest.
        lower, upper: (B, 3) corners of each crop's input box in scene units.
        resolution: R, cells along each side of the boxes, a multiple of the U-Net's pooling factor.
    """

    points: Tensor
    index: Mapping[Projection, Tensor]
    lower: Tensor
    upper: Tensor
    resolution: int

    @classmethod
    def in_boxes(
        cls,
        points: Tensor,
        lower: Tensor,
        upper: Tensor,
        resolution: int,
        projections: tuple[Projection, ...] = ("grid",),
    ) -> CropInputs:
        """Find the cells of points; boxes are half open, so no point falls into two neighboring crops.

        Raises:
            ValueError: if a box is empty.
        """
        if not bool((upper > lower).all()):
            raise ValueError("upper corners of crops must exceed lower corners along every axis")
        scaled = normalize_in_bounds(points, lower, upper, "grid")
        inside = ((scaled >= 0) & (scaled < 1)).all(dim=-1)
        index = {}
        for projection in projections:
            cells = cell_index(scaled[..., AXES[projection]], resolution)
            index[projection] = torch.where(inside, cells, resolution ** len(AXES[projection]))
        return cls(points, index, lower, upper, resolution)


@dataclass(frozen=True)
class CropFeatures:
    """Feature grids of a batch of crops, with the boxes they fill.

    Attributes:
        grids: for each projection (B, C, R, R) or (B, C, R, R, R).
        lower, upper: (B, 3) corners of the boxes in scene units.
    """

    grids: Grids
    lower: Tensor
    upper: Tensor


def crop_resolution(query_voxels: int, unet_levels: int) -> int:
    """Cells along a crop's input box so that its query box keeps a nominal receptive field around it.

    The original assumes a field of 2 ** (levels + 2) cells, and rounds up to what the U-Net can halve.
    """
    base = 1 << (unet_levels - 1)
    wanted = query_voxels + (1 << (unet_levels + 2)) - 1
    return -(-wanted // base) * base


class PatchLocalPoolPointnet(nn.Module):
    """The point encoder of crops: coordinates relative to voxels, cells from the data.

    Args:
        trunk: from coordinates to the points' features.
        grids: where these go; their resolutions give way to the inputs'.
        unit_size: side of a voxel in scene units; None for absolute coordinates.
        encoding: of the coordinates inside a voxel; "sin_cos" needs a unit size.
    """

    def __init__(
        self,
        trunk: LocalPoolTrunk,
        grids: FeatureGrids,
        unit_size: float | None,
        encoding: PositionEncoding = "linear",
    ) -> None:
        super().__init__()
        self.trunk, self.grids, self.unit_size = trunk, grids, unit_size
        self.encoding: PositionEncoding = encoding

    def forward(self, crops: CropInputs) -> CropFeatures:
        """Encode a batch of crops.

        Raises:
            ValueError: if the inputs have no cells for one of the projections.
        """
        projections = self.grids.sizes.projections
        absent = [projection for projection in projections if projection not in crops.index]
        if absent:
            raise ValueError(
                f"the crops have no cells for {', '.join(absent)}; index them when building inputs"
            )
        inside = torch.stack(
            [crops.index[name] < crops.resolution ** len(AXES[name]) for name in projections]
        ).all(dim=0)
        kept = inside.flatten()
        cells = {
            name: OccupiedVoxels.of_cells(flat_cell_index(crops.index[name], crops.resolution, name)[kept])
            for name in projections
        }
        positions = crops.points
        if self.unit_size is not None:
            positions = local_coordinates(positions, self.unit_size, self.encoding)
        features = self.trunk(positions.flatten(0, 1)[kept], cells.values())
        grids = self.grids(features, cells, len(crops.points), crops.resolution)
        return CropFeatures(grids, crops.lower, crops.upper)
