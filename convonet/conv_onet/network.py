"""Convolutional Occupancy Networks (Peng et al. 2020): one configuration, an encoder and a decoder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from torch import Tensor, nn

from convonet.conv_onet.coordinates import PROJECTIONS, PositionEncoding, Projection, position_size
from convonet.conv_onet.feature_grids import FeatureGrids, Grids, GridSizes
from convonet.conv_onet.local_decoder import ConditionedBlocks, LocalDecoder, PatchLocalDecoder, Sampling
from convonet.conv_onet.patch_encoder import (
    CropFeatures,
    CropInputs,
    PatchLocalPoolPointnet,
    crop_resolution,
)
from convonet.conv_onet.point_decoder import Kernel, LocalPointDecoder
from convonet.conv_onet.pointnetpp import BallGrouping, PointFeatures, PointNetPlusPlus
from convonet.conv_onet.pooled_encoder import LocalPoolPointnet
from convonet.conv_onet.unet3d import GROUPS
from convonet.conv_onet.voxel_encoder import LocalVoxelEncoder
from convonet.layers.pooled_trunk import LocalPoolTrunk
from convonet.layers.scatter import Backend, Pooling
from foundation.errors import SettingError
from foundation.settings import check_fields

InputFamily = Literal["points", "voxels", "crops", "pointconv"]
Inputs = Tensor | CropInputs
Features = Grids | CropFeatures | PointFeatures


@dataclass(frozen=True)
class ConvOnetConfig:
    """Sizes of a `ConvOnet`. Plain values only, so that it goes through JSON and back.

    Attributes:
        family: what goes in and how it is encoded. "points" and "pointconv" take (B, N, 3) clouds in the unit
            cube, "voxels" (B, D, H, W) grids, "crops" `CropInputs` in scene units.
        projections: where features live; planes, "grid" or both. Empty for "pointconv".
        plane_resolution, volume_resolution: cells along each side. Crops bring theirs with
            them, by default `crop_resolution`.
        feature_size: channels of features.
        encoder_hidden, encoder_blocks: width and number of the point encoder's blocks.
        pooling: reduction over a cell between the blocks.
        unet2d_levels, unet2d_channels: the planes' U-Net; 0 levels for none.
        unet3d_levels, unet3d_channels: the volume's U-Net; 0 levels for none.
        decoder_hidden, decoder_blocks: width and number of the decoder's blocks.
        sampling: how grids are read between cell centers.
        padding: width added to the unit cube.
        voxel_kernel: of the voxel encoder's convolution, 1 or 3.
        unit_size: side of a voxel of "crops" in scene units.
        query_voxels: side of the box of a crop that is queried, in voxels.
        local_coordinates: whether crops see positions inside voxels only, not absolute ones.
        encoding: of positions inside voxels.
        kernel, gaussian_width: weights of points in the decoder of "pointconv".
        pointnetpp_width: channels of the first layers of "pointconv".
        fine_centers, fine_radius, fine_neighbors: its first level of balls.
        coarse_centers, coarse_radius, coarse_neighbors: its second.
        backend: what reduces over cells; both give the same.

    Raises:
        SettingError: if a value is out of range or two contradict each other.
    """

    kind: ClassVar[str] = "conv_onet"

    family: InputFamily = "points"
    projections: tuple[Projection, ...] = ()
    plane_resolution: int = 64
    volume_resolution: int = 32
    feature_size: int = 32
    encoder_hidden: int = 32
    encoder_blocks: int = 5
    pooling: Pooling = "max"
    unet2d_levels: int = 0
    unet2d_channels: int = 32
    unet3d_levels: int = 0
    unet3d_channels: int = 32
    decoder_hidden: int = 32
    decoder_blocks: int = 5
    sampling: Sampling = "linear"
    padding: float = 0.1
    voxel_kernel: int = 3
    unit_size: float = 0.005
    query_voxels: int = 25
    local_coordinates: bool = True
    encoding: PositionEncoding = "linear"
    kernel: Kernel = "gaussian"
    gaussian_width: float = 0.2
    pointnetpp_width: int = 64
    fine_centers: int = 512
    fine_radius: float = 0.2
    fine_neighbors: int = 32
    coarse_centers: int = 128
    coarse_radius: float = 0.4
    coarse_neighbors: int = 64
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "projections", tuple(self.projections))  # a list, where it comes from JSON
        check_fields(self, but=("unet2d_levels", "unet3d_levels", "voxel_kernel"))
        for name in ("unit_size", "gaussian_width", "fine_radius", "coarse_radius"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} must be positive, not {getattr(self, name)!r}")
        if not self.padding >= 0:
            raise SettingError(f"padding must not be negative, not {self.padding!r}")
        self._check_grids()

    def _check_grids(self) -> None:
        known = set(self.projections) <= set(PROJECTIONS)
        if not known or len(set(self.projections)) < len(self.projections):
            raise SettingError(
                f"projections must be distinct ones of {', '.join(PROJECTIONS)}, not {self.projections}"
            )
        if (self.family == "pointconv") != (not self.projections):
            raise SettingError(f"the family {self.family!r} does not go with projections {self.projections}")
        if self.family == "voxels" and "grid" in self.projections and len(self.projections) > 1:
            raise SettingError("voxels go onto planes or into a volume, not both")
        planes = [name for name in self.projections if name != "grid"]
        for levels, resolution, used in (
            (self.unet2d_levels, self.plane_resolution, bool(planes)),
            (self.unet3d_levels, self.volume_resolution, "grid" in self.projections),
        ):
            if levels < 0:
                raise SettingError(f"a U-Net cannot have {levels} levels")
            if used and levels and self.family != "crops" and resolution % 2 ** (levels - 1):
                raise SettingError(f"{resolution} cells cannot be halved {levels - 1} times by the U-Net")
        if self.unet3d_levels and "grid" in self.projections:
            if self.feature_size > GROUPS and self.feature_size % GROUPS:
                raise SettingError(
                    f"feature_size {self.feature_size} is not a multiple of {GROUPS}, nor less"
                )
            if self.unet3d_channels % GROUPS:
                raise SettingError(f"unet3d_channels {self.unet3d_channels} is not a multiple of {GROUPS}")

    @property
    def grid_sizes(self) -> GridSizes:
        """The part that describes feature grids."""
        return GridSizes(**{field.name: getattr(self, field.name) for field in fields(GridSizes)})

    @property
    def crop_resolution(self) -> int:
        """Cells along each side of a crop's input box: the query box and the nominal receptive field."""
        volume_levels = self.unet3d_levels if "grid" in self.projections else 0
        plane_levels = self.unet2d_levels if set(self.projections) - {"grid"} else 0
        return crop_resolution(self.query_voxels, max(1, volume_levels, plane_levels))

    def build(self) -> ConvOnet:
        """A network with fresh weights."""
        return ConvOnet(self)


class ConvOnet(nn.Module):
    """From inputs to features once, from features to occupancy logits at any number of queries."""

    def __init__(self, config: ConvOnetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)

    def encode(self, inputs: Inputs) -> Features:
        """Features of a batch of inputs of the configuration's family.

        Args:
            inputs: (B, N, 3) float32 points in the unit cube ("points", "pointconv"); (B, D, H, W) float32
                voxels, axes x, y, z ("voxels"); or `CropInputs` ("crops").

        Returns:
            What `decode` takes: feature grids, crops' feature grids or point features.

        Raises:
            ValueError: if the inputs are not of the family's kind.
        """
        self._check(inputs)
        return self.encoder(inputs)  # type: ignore[no-any-return]

    def decode(self, features: Features, queries: Tensor) -> Tensor:
        """Occupancy logits (B, Q) at (B, Q, 3) queries: in the unit cube, or in scene units for crops."""
        return self.decoder(queries, features)  # type: ignore[no-any-return]

    def forward(self, inputs: Inputs, queries: Tensor) -> Tensor:
        """Encode and decode in one call, as training does: logits (B, Q)."""
        return self.decode(self.encode(inputs), queries)

    def _check(self, inputs: Inputs) -> None:
        family = self.config.family
        if family == "crops":
            if not isinstance(inputs, CropInputs):
                raise ValueError(f"a network of crops takes CropInputs, not {type(inputs).__name__}")
            return
        if not isinstance(inputs, Tensor):
            raise ValueError(f"a network of {family} takes a tensor, not {type(inputs).__name__}")
        if family == "voxels" and inputs.dim() != 4:
            raise ValueError(f"voxels must be (B, D, H, W), not {tuple(inputs.shape)}")
        if family != "voxels" and (inputs.dim() != 3 or inputs.shape[2] != 3):
            raise ValueError(f"points must be (B, N, 3), not {tuple(inputs.shape)}")


def _encoder(config: ConvOnetConfig) -> nn.Module:
    if config.family == "pointconv":
        return PointNetPlusPlus(
            config.feature_size,
            config.pointnetpp_width,
            BallGrouping(config.fine_centers, config.fine_radius, config.fine_neighbors),
            BallGrouping(config.coarse_centers, config.coarse_radius, config.coarse_neighbors),
        )
    if config.family == "voxels":
        return LocalVoxelEncoder(
            config.feature_size, config.voxel_kernel, config.grid_sizes, config.padding, config.backend
        )
    trunk = LocalPoolTrunk(
        position_size(config.encoding) if config.family == "crops" else 3,
        config.feature_size,
        config.encoder_hidden,
        config.encoder_blocks,
        config.pooling,
        config.backend,
    )
    grids = FeatureGrids(config.feature_size, config.grid_sizes, config.backend)
    if config.family == "crops":
        unit_size = config.unit_size if config.local_coordinates else None
        return PatchLocalPoolPointnet(trunk, grids, unit_size, config.encoding)
    return LocalPoolPointnet(trunk, grids, config.padding)


def _decoder(config: ConvOnetConfig) -> nn.Module:
    is_crops = config.family == "crops"
    width = position_size(config.encoding) if is_crops else 3
    head = ConditionedBlocks(width, config.feature_size, config.decoder_hidden, config.decoder_blocks)
    if config.family == "pointconv":
        return LocalPointDecoder(head, config.kernel, config.gaussian_width)
    if is_crops:
        unit_size = config.unit_size if config.local_coordinates else None
        return PatchLocalDecoder(head, unit_size, config.encoding, config.sampling)
    return LocalDecoder(head, config.padding, config.sampling)
