"""The volume Convolutional Occupancy Network: points of a crop to a field of occupancy logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from convonet.crop_network import CropNetwork
from convonet.layers.grid_box import GridBox
from convonet.layers.pieces import each_piece
from convonet.layers.point_encoder import PointHints, VoxelPointNet
from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.sampling import TrilinearReads, sample_trilinear
from convonet.layers.voxel_decoder import VoxelDecoder
from convonet.layers.voxel_unet import VoxelUNet
from foundation.settings import check_fields

CACHED_QUERIES = 16_384  # decoded at once without a graph: their activations stay in a processor's cache
READ_SHARE = 1 / 2  # of the voxels read, up to which the last block is computed at those alone


@dataclass(frozen=True)
class VolumeNetworkConfig:
    """Sizes of a `VolumeNetwork`.

    Attributes:
        feature_size: channels of the feature volume.
        encoder_hidden: width of the point encoder.
        encoder_blocks: residual blocks of the point encoder.
        unet_levels: resolutions of the 3D U-Net.
        decoder_hidden: width of the decoder.
        decoder_blocks: residual blocks of the decoder.
        has_hints: whether points may carry hints: a direction to their free side, the thickness of sheets.
        logits_per_voxel: slope of the logit across a surface, for weights trained on signed distances; 0 for others.
    """

    kind: ClassVar[str] = "volume"

    feature_size: int = 32
    encoder_hidden: int = 32
    encoder_blocks: int = 3
    unet_levels: int = 3
    decoder_hidden: int = 32
    decoder_blocks: int = 5
    has_hints: bool = False
    logits_per_voxel: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self) -> VolumeNetwork:
        """A network with random weights."""
        return VolumeNetwork(self)


@dataclass(frozen=True)
class FeatureVolume:
    """Features of a batch of crops.

    Attributes:
        volume: (B, C, D, H, W) in channels-last memory order: the crops without what no query reads.
        start: voxels left out at every face.
    """

    volume: Tensor
    start: int


class VolumeNetwork(CropNetwork):
    """Encoder with local pooling, 3D U-Net, trilinear query and decoder (Peng et al. 2020).

    All positions are in voxel units, so one set of weights serves every scale.
    """

    def __init__(self, config: VolumeNetworkConfig) -> None:
        super().__init__()
        self.config: VolumeNetworkConfig = config
        self.encoder = VoxelPointNet(
            config.feature_size, config.encoder_hidden, config.encoder_blocks, config.has_hints
        )
        self.unet = VoxelUNet(config.feature_size, config.unet_levels)
        self.decoder = VoxelDecoder(config.feature_size, config.decoder_hidden, config.decoder_blocks)

    @property
    def receptive_radius(self) -> int:
        """Voxels around a query that its logit may depend on: the U-Net's reach and one of interpolation."""
        return self.unet.receptive_radius + 1

    @property
    def pooling_factor(self) -> int:
        """Crop origins and sides are multiples of this number of voxels."""
        return self.unet.pooling_factor

    def encode(
        self,
        points: Tensor,
        batch_index: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        hints: PointHints | None = None,
        margin: int = 0,
    ) -> FeatureVolume:
        """See `CropNetwork`."""
        voxels = self._occupied_voxels(points, batch_index, grid_shape)
        features = self.encoder(points, voxels, hints)
        start = max(0, margin - 1)  # a query reads half a voxel further
        depth, height, width = grid_shape
        box = GridBox((start, start, start), (depth - start, height - start, width - start))
        volume = self.unet.forward_occupied(features, voxels.flat_index, (batch_size, *grid_shape), box)
        return FeatureVolume(volume, start)

    def decode(self, features: FeatureVolume, queries: Tensor, batch_index: Tensor) -> Tensor:
        """See `CropNetwork`."""
        volume, queries = features.volume, queries - features.start
        if torch.is_grad_enabled():
            return self.decoder(queries, sample_trilinear(volume, queries, batch_index))  # type: ignore[no-any-return]
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
        parts = zip(
            torch.split(queries, CACHED_QUERIES), torch.split(batch_index, CACHED_QUERIES), strict=True
        )
        return torch.cat(
            each_piece(lambda part: self.decoder(part[0], sample_trilinear(volume, *part)), parts)
        )

    def forward(
        self,
        points: Tensor,
        point_batch: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        queries: Tensor,
        query_batch: Tensor,
        hints: PointHints | None = None,
    ) -> Tensor:
        """Encode and decode in one call, as training does: (Q,) logits."""
        reads = TrilinearReads.at(queries, query_batch, grid_shape)
        cells, cell_of_read = torch.unique(reads.cells, return_inverse=True)
        if queries.device.type != "cpu" or len(cells) > READ_SHARE * batch_size * math.prod(grid_shape):
            crops = self.encode(points, point_batch, batch_size, grid_shape, hints)
            return self.decode(crops, queries, query_batch)
        voxels = self._occupied_voxels(points, point_batch, grid_shape)
        grid = (batch_size, *grid_shape)
        features = self.encoder(points, voxels, hints)
        table = self.unet.forward_occupied_at(features, voxels.flat_index, grid, cells)
        return self.decoder(queries, TrilinearReads(cell_of_read, reads.weights).mix(table))  # type: ignore[no-any-return]

    def _occupied_voxels(
        self, points: Tensor, batch_index: Tensor, grid_shape: tuple[int, int, int]
    ) -> OccupiedVoxels:
        self.check_grid(grid_shape)
        return OccupiedVoxels.of_points(points, batch_index, grid_shape)
