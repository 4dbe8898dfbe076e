"""Crops with feature planes, alone or beside a volume: points of a crop to a field of occupancy logits.

Peng et al. 2020, section 3.1, in voxel units of a crop and with local normalization. A plane gathers all points along
its normal, so each carries its place in the crop, and the field depends on all of the crop: neighboring crops agree
less well than the volume network's, and blending joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from convonet.crop_network import CropNetwork
from convonet.layers.point_encoder import PointHints
from convonet.layers.pooled_trunk import LocalPoolTrunk
from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.sampling import sample_trilinear
from convonet.layers.voxel_decoder import VoxelDecoder
from convonet.layers.voxel_unet import VoxelUNet
from foundation.errors import SettingError
from foundation.settings import check_fields

Plane = Literal["xz", "xy", "yz"]
NORMALS: dict[Plane, int] = {"xz": 1, "xy": 2, "yz": 0}  # coordinate along which a plane gathers
CONTEXT = 12  # voxels around a query that a crop shows at least
BLEND = 4  # voxels beyond a tile that are asked too


@dataclass(frozen=True)
class PlaneNetworkConfig:
    """Sizes of a `PlaneNetwork`.

    Attributes:
        planes: the feature planes.
        has_volume: whether there is a feature volume beside them.
        feature_size: channels of the features.
        encoder_hidden, encoder_blocks: width and number of the point encoder's residual blocks.
        unet_levels: resolutions of the U-Nets.
        decoder_hidden, decoder_blocks: width and number of the decoder's residual blocks.
        crop_voxels: side of the crops that it is trained on and reconstructs with.
        has_hints: whether points may carry hints.
        logits_per_voxel: slope of the logit across a surface, for weights trained on signed distances; 0 for others.

    Raises:
        SettingError: if a value is out of range.
    """

    kind: ClassVar[str] = "planes"

    planes: tuple[Plane, ...] = get_args(Plane)
    has_volume: bool = False
    feature_size: int = 32
    encoder_hidden: int = 32
    encoder_blocks: int = 3
    unet_levels: int = 3
    decoder_hidden: int = 32
    decoder_blocks: int = 5
    crop_voxels: int = 64
    has_hints: bool = False
    logits_per_voxel: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "planes", tuple(self.planes))  # a list, where it comes from JSON
        if not self.planes or len(set(self.planes)) < len(self.planes) or set(self.planes) - set(NORMALS):
            raise SettingError(f"planes must be distinct ones of {', '.join(NORMALS)}, not {self.planes}")
        check_fields(self)

    def build(self) -> PlaneNetwork:
        """A network with random weights."""
        return PlaneNetwork(self)


@dataclass(frozen=True)
class PlaneFeatures:
    """Feature grids of a batch of crops.

    Attributes:
        grids: (B, C, D, H, W) each; a plane has one cell along its normal.
        grid_shape: voxels of the crops along z, y, x.
    """

    grids: tuple[Tensor, ...]
    grid_shape: tuple[int, int, int]


class PlaneNetwork(CropNetwork):
    """Encoder with pooling in the cells of all grids, a U-Net for all planes and one for the volume, decoder."""

    def __init__(self, config: PlaneNetworkConfig) -> None:
        super().__init__()
        self.config: PlaneNetworkConfig = config
        width = 10 if config.has_hints else 6
        self.trunk = LocalPoolTrunk(
            width, config.feature_size, config.encoder_hidden, config.encoder_blocks, "max", "torch"
        )
        self.plane_unet = VoxelUNet(config.feature_size, config.unet_levels, is_flat=True)
        self.volume_unet = VoxelUNet(config.feature_size, config.unet_levels) if config.has_volume else None
        self.fc_place = nn.Linear(3, config.feature_size)
        self.decoder = VoxelDecoder(config.feature_size, config.decoder_hidden, config.decoder_blocks)

    @property
    def receptive_radius(self) -> int:
        """Voxels around a query that a crop shows; the logit depends on what else the crop shows, too."""
        return CONTEXT

    @property
    def pooling_factor(self) -> int:
        """Crop origins and sides are multiples of this number of voxels."""
        return self.plane_unet.pooling_factor

    @property
    def tile_voxels(self) -> int:
        """Such that crops are as large as in training."""
        return max(self.pooling_factor, self.config.crop_voxels - 2 * (CONTEXT + BLEND))

    def encode(
        self,
        points: Tensor,
        batch_index: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        hints: PointHints | None = None,
        margin: int = 0,
    ) -> PlaneFeatures:
        """See `CropNetwork`; a plane's features depend on the whole crop."""
        self.check_grid(grid_shape)
        normals = [NORMALS[plane] for plane in self.config.planes]
        of_planes = [
            OccupiedVoxels.of_points(_without(points, normal), batch_index, _flattened(grid_shape, normal))
            for normal in normals
        ]
        of_volume = []
        if self.volume_unet is not None:
            of_volume.append(OccupiedVoxels.of_points(points, batch_index, grid_shape))
        columns = [2 * (points - torch.floor(points)) - 1, self._place(points, grid_shape)]
        if self.config.has_hints:
            columns.append(points.new_zeros(len(points), 4) if hints is None else hints.as_rows())
        rows = self.trunk(torch.cat(columns, dim=1), [*of_planes, *of_volume])
        features = rows.float()  # means of a column's many points need the digits
        grids = [
            self._plane(cells.mean(features), cells.flat_index, batch_size, grid_shape, normal)
            for cells, normal in zip(of_planes, normals, strict=True)
        ]
        for cells in of_volume:
            assert self.volume_unet is not None
            pooled, grid = cells.mean(features).to(rows.dtype), (batch_size, *grid_shape)
            grids.append(self.volume_unet.forward_occupied(pooled, cells.flat_index, grid))
        return PlaneFeatures(tuple(grids), grid_shape)

    def decode(self, features: PlaneFeatures, queries: Tensor, batch_index: Tensor) -> Tensor:
        """See `CropNetwork`."""
        sampled = [sample_trilinear(grid, queries, batch_index).float() for grid in features.grids]
        total = self.fc_place(self._place(queries, features.grid_shape)).float() + torch.stack(sampled).sum(0)
        return self.decoder(queries, total)  # type: ignore[no-any-return]

    def _place(self, positions: Tensor, grid_shape: tuple[int, int, int]) -> Tensor:
        """Positions about the crop's middle, about -1 to 1."""
        middle = positions.new_tensor(grid_shape[::-1]) / 2
        return (positions - middle) * (2 / self.config.crop_voxels)

    def _plane(
        self, pooled: Tensor, occupied: Tensor, batch_size: int, grid_shape: tuple[int, int, int], normal: int
    ) -> Tensor:
        """Completed features of a plane: (B, C, D, H, W) with one cell along its normal."""
        length, width = (side for axis, side in enumerate(grid_shape) if axis != 2 - normal)
        dense = pooled.new_zeros(batch_size * length * width, pooled.shape[1]).index_copy(0, occupied, pooled)
        plane = self.plane_unet(dense.view(batch_size, 1, length, width, -1).permute(0, 4, 1, 2, 3))
        return plane.squeeze(2).unsqueeze(4 - normal)  # type: ignore[no-any-return]


def _flattened(grid_shape: tuple[int, int, int], normal: int) -> tuple[int, int, int]:
    """(D, H, W) with one cell along a coordinate (x: 0, y: 1, z: 2)."""
    depth, height, width = (1 if axis == 2 - normal else side for axis, side in enumerate(grid_shape))
    return depth, height, width


def _without(points: Tensor, normal: int) -> Tensor:
    """Points (N, 3) moved onto the plane."""
    kept = torch.arange(3, device=points.device) != normal
    return torch.where(kept, points, 0.0)
