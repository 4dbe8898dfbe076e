"""Networks of crops with the originals' weights, in voxel units of a scene's crops (Peng et al. 2020, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from convonet.conv_onet.coordinates import local_coordinates
from convonet.conv_onet.feature_grids import dense_grid
from convonet.conv_onet.local_decoder import PatchLocalDecoder, sample_grid
from convonet.conv_onet.network import ConvOnet
from convonet.conv_onet.patch_encoder import PatchLocalPoolPointnet
from convonet.conv_onet.presets import OCCUPANCY_THRESHOLD
from convonet.crop_network import CropNetwork
from convonet.errors import WeightsError
from convonet.layers.point_encoder import PointHints
from convonet.layers.pooling import OccupiedVoxels

BLEND = 4  # voxels of the nominal receptive field that blending may take


class SceneCrops(CropNetwork):
    """A `ConvOnet` of the family "crops" as the sliding window wants it: the same numbers, for boxes in voxel units.

    Its group norm takes statistics over the whole crop, so that neighboring crops do not agree and are to be blended.
    The original's conventions stay: features are read with the outermost cells' centers on the crop's faces, positions
    enter as offsets within voxels of the scan's own coordinates, the crop keeps half of the nominal receptive field on
    every side of the queried box. All is computed in float32, whatever autocast says.

    Args:
        network: with a feature volume, and coordinates within voxels.
        phase: where the scene's voxels begin within the scan's, in [0, 1).

    Raises:
        WeightsError: if the network has planes, or sees absolute positions.
    """

    def __init__(self, network: ConvOnet, phase: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        super().__init__()
        config = network.config
        if config.family != "crops" or config.projections != ("grid",) or not config.local_coordinates:
            raise WeightsError(
                "scenes are reconstructed by networks of crops with a feature volume and coordinates within voxels, "
                f"not by one of {config.family} with {', '.join(config.projections)}"
            )
        self.config, self.network, self.phase = config, network, phase

    @property
    def receptive_radius(self) -> int:
        """Half of the nominal field, less what blending asks beyond a tile: crops are as large as the originals'."""
        return max(1, (1 << (self._levels + 1)) - BLEND)

    @property
    def pooling_factor(self) -> int:
        """Crop origins and sides are multiples of this number of voxels."""
        return 1 << (self._levels - 1)

    @property
    def tile_voxels(self) -> int:
        """The queried box of training, in whole cells of the U-Net's coarsest level."""
        factor = self.pooling_factor
        return max(factor, int(self.config.query_voxels) // factor * factor)

    @property
    def threshold(self) -> float:
        """That of the published meshes."""
        return OCCUPANCY_THRESHOLD

    @property
    def voxel_side(self) -> float:
        """Of a voxel, where the scene fills the unit cube."""
        return float(self.config.unit_size)

    def at_origin(self, origin: tuple[float, float, float]) -> SceneCrops:
        """The same weights for crops whose voxels begin at `origin`, in voxel units of the scan's coordinates."""
        x, y, z = (value % 1.0 for value in origin)
        return SceneCrops(self.network, (x, y, z))

    def encode(
        self,
        points: Tensor,
        batch_index: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        hints: PointHints | None = None,
        margin: int = 0,
    ) -> Tensor:
        """See `CropNetwork`; the originals take no hints, and their group norm reads the whole crop.

        Returns:
            The completed feature volume (B, C, D, H, W).
        """
        self.check_grid(grid_shape)
        encoder = self.network.encoder
        assert isinstance(encoder, PatchLocalPoolPointnet)
        cells = OccupiedVoxels.of_points(points, batch_index, grid_shape)
        with torch.autocast(points.device.type, enabled=False):
            features = encoder.trunk(self._within_voxels(points), [cells])
            volume = dense_grid(cells.mean(features), cells.flat_index, (batch_size, *grid_shape))
            unet = encoder.grids.unet3d
            return volume if unet is None else unet(volume)

    def decode(self, features: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
        """See `CropNetwork`."""
        decoder = self.network.decoder
        assert isinstance(decoder, PatchLocalDecoder)
        logits = queries.new_zeros(len(queries))
        with torch.autocast(queries.device.type, enabled=False):
            for crop in range(len(features)):
                rows = (batch_index == crop).nonzero()[:, 0]
                inside = queries[rows]
                scaled = inside / queries.new_tensor(features.shape[:1:-1])
                sampled = sample_grid(features[crop : crop + 1], scaled[None], decoder.sampling)
                found = decoder.head(self._within_voxels(inside)[None], sampled)[0]
                logits = logits.index_copy(0, rows, found)
        return logits

    @property
    def _levels(self) -> int:
        return max(1, int(self.config.unet3d_levels))

    def _within_voxels(self, positions: Tensor) -> Tensor:
        shifted = positions + positions.new_tensor(self.phase)
        return local_coordinates(shifted, 1.0, self.config.encoding)
