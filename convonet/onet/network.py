"""The Occupancy Network: an input's features and a latent decide the occupancy of the unit cube.

Mescheder et al. 2019, section 3. Positions are in a cube of side 1 centered at 0; surfaces may lie a
little outside of it, and the originals extract them from the cube of side 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from convonet.layers.additive_decoder import DecoderSizes
from convonet.layers.latent_gaussian import LatentGaussian
from convonet.layers.pointnet import ResnetPointnet, SimplePointnet
from convonet.layers.resnet18 import ImageEncoder
from convonet.onet.decoders import DecoderKind, build_decoder
from convonet.onet.latent_encoder import LatentEncoder
from convonet.onet.voxel_encoder import VoxelEncoder
from foundation.errors import SettingError
from foundation.settings import check_fields

EncoderKind = Literal["pointnet_resnet", "pointnet_simple", "voxel_simple", "resnet18", "index", "none"]
WIDE_ENCODERS = ("pointnet_resnet", "pointnet_simple", "voxel_simple")


@dataclass(frozen=True)
class OccupancyNetworkConfig:
    """Sizes of an `OccupancyNetwork`.

    Attributes:
        encoder: what the input is: a point cloud (`pointnet_resnet`, `pointnet_simple`), a voxel grid
            (`voxel_simple`), an image (`resnet18`), the number of a training shape (`index`) or nothing
            (`none`).
        feature_size: C, width of the encoder's features; 0 exactly if there is no encoder.
        encoder_hidden: width of a PointNet, or channels of the voxel encoder's first layer; 0 for the
            other encoders, whose widths are fixed.
        shape_count: number of shapes that `index` can tell apart; 0 for other encoders.
        decoder: kind of decoder, see `convonet.onet.decoders`.
        decoder_hidden: width of the decoder.
        decoder_blocks: blocks of the decoder; the original varies them for `cbatchnorm2` alone.
        decoder_leaky: leaky rectifiers in the decoder, outside of residual blocks.
        latent_size: Z, width of the latent; 0 for none.
        latent_hidden: width of the latent encoder.
        latent_leaky: leaky rectifiers and mean pooling in the latent encoder.
        threshold: probability of occupancy that the surface lies at when the original extracts it.
    """

    kind: ClassVar[str] = "onet"

    encoder: EncoderKind
    feature_size: int
    encoder_hidden: int = 0
    shape_count: int = 0
    decoder: DecoderKind = "cbatchnorm"
    decoder_hidden: int = 256
    decoder_blocks: int = 5
    decoder_leaky: bool = False
    latent_size: int = 0
    latent_hidden: int = 128
    latent_leaky: bool = False
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, but=("latent_size", "feature_size", "encoder_hidden", "shape_count"))
        _check_size("latent_size", self.latent_size, positive=self.latent_size != 0, why="")
        why = f" with encoder {self.encoder!r}"
        _check_size("feature_size", self.feature_size, self.encoder != "none", why)
        _check_size("encoder_hidden", self.encoder_hidden, self.encoder in WIDE_ENCODERS, why)
        _check_size("shape_count", self.shape_count, self.encoder == "index", why)
        if self.decoder.startswith("cbatchnorm") and not self.feature_size:
            raise SettingError(
                f"decoder {self.decoder!r} is conditioned on features; without an encoder use 'simple'"
            )
        if self.decoder == "cbatchnorm2" and self.decoder_leaky:
            raise SettingError("decoder 'cbatchnorm2' has no leaky variant")
        if not 0 < self.threshold < 1:
            raise SettingError(f"threshold must lie between 0 and 1, not {self.threshold!r}")

    def build(self) -> OccupancyNetwork:
        """A network of this configuration with fresh weights."""
        return OccupancyNetwork(self)


def _check_size(name: str, value: int, positive: bool, why: str) -> None:
    if positive and (not isinstance(value, int) or value < 1):
        raise SettingError(f"{name} must be a positive whole number{why}, not {value!r}")
    if not positive and value != 0:
        raise SettingError(f"{name} must be 0{why}, not {value!r}")


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound of a batch, in nats.

    Attributes:
        reconstruction: (B,) cross-entropy summed over the queries of each shape.
        kl: (B,) divergence of each latent's posterior to the prior; 0 without a latent.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def bound(self) -> Tensor:
        """(B,) lower bound of each shape's log likelihood."""
        return -self.reconstruction - self.kl

    @property
    def loss(self) -> Tensor:
        """Scalar that training minimizes: the batch's mean of the negative bound (section 3.2, equation 4)."""
        return -self.bound.mean()


class OccupancyNetwork(nn.Module):
    """Encoder, decoder and, if it has a latent, the encoder of the latent's posterior."""

    def __init__(self, config: OccupancyNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _build_encoder(config)
        self.decoder = build_decoder(
            config.decoder,
            DecoderSizes(
                feature_size=config.feature_size,
                latent_size=config.latent_size,
                hidden_size=config.decoder_hidden,
                blocks=config.decoder_blocks,
                leaky=config.decoder_leaky,
            ),
        )
        self.latent_encoder: LatentEncoder | None = None
        if config.latent_size:
            self.latent_encoder = LatentEncoder(
                config.latent_size, config.feature_size, config.latent_hidden, config.latent_leaky
            )

    def encode(self, inputs: Tensor) -> Tensor:
        """Features of a batch of inputs.

        Args:
            inputs: as the encoder wants them: (B, N, 3) points, (B, 32, 32, 32) voxels indexed x, y, z,
                (B, 3, H, W) images in [0, 1] or (B,) int64 shape numbers. Without an encoder only the
                batch size counts: (B, 0) will do.

        Returns:
            (B, C).

        Raises:
            ValueError: if the inputs have another shape.
        """
        if self.encoder is None:
            return inputs.new_zeros(len(inputs), 0)
        if self.config.encoder == "index" and (inputs.ndim != 1 or inputs.is_floating_point()):
            raise ValueError(
                f"shape numbers must be (B,) whole numbers, not {tuple(inputs.shape)} {inputs.dtype}"
            )
        return self.encoder(inputs)  # type: ignore[no-any-return]

    def decode(self, features: Tensor, queries: Tensor, latent: Tensor | None = None) -> Tensor:
        """Occupancy logits.

        Args:
            features: (B, C) from `encode`.
            queries: (B, Q, 3) float32 positions in the unit cube centered at 0.
            latent: (B, Z); None stands for the prior's mean, 0.

        Returns:
            (B, Q); above logit(threshold) is inside.

        Raises:
            ValueError: if a shape does not fit the others or the network.
        """
        batch = len(features)
        if queries.ndim != 3 or len(queries) != batch or queries.shape[2] != 3:
            raise ValueError(f"queries must be ({batch}, Q, 3), not {tuple(queries.shape)}")
        if latent is None:
            latent = features.new_zeros(batch, self.config.latent_size)
        if latent.shape != (batch, self.config.latent_size):
            raise ValueError(
                f"latent must be ({batch}, {self.config.latent_size}), not {tuple(latent.shape)}"
            )
        return self.decoder(queries, features, latent)  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor, queries: Tensor, latent: Tensor | None = None) -> Tensor:
        """Encode and decode in one call: (B, Q) logits."""
        return self.decode(self.encode(inputs), queries, latent)

    def infer_latent(self, features: Tensor, queries: Tensor, occupancy: Tensor) -> LatentGaussian:
        """Posterior of the latent, given the occupancy of some points of each shape.

        Args:
            features: (B, C) from `encode`.
            queries: (B, Q, 3) positions.
            occupancy: (B, Q) float32, 0 or 1 at them.

        Returns:
            the Gaussian; of width 0 for a network without a latent.
        """
        if self.latent_encoder is None:
            nothing = features.new_zeros(len(features), 0)
            return LatentGaussian(nothing, nothing)
        return self.latent_encoder(queries, occupancy, features)  # type: ignore[no-any-return]

    def elbo(
        self, inputs: Tensor, queries: Tensor, occupancy: Tensor, generator: torch.Generator | None = None
    ) -> Elbo:
        """What a training step needs: reconstruction error and divergence of a batch.

        Args:
            inputs: see `encode`.
            queries: (B, Q, 3) positions.
            occupancy: (B, Q) float32, 0 or 1 at them.
            generator: of the latent's noise.

        Raises:
            ValueError: if a shape does not fit the others or the network.
        """
        if occupancy.shape != queries.shape[:2]:
            expected, given = tuple(queries.shape[:2]), tuple(occupancy.shape)
            raise ValueError(f"occupancy must be {expected}, one value for each query, not {given}")
        features = self.encode(inputs)
        posterior = self.infer_latent(features, queries, occupancy)
        logits = self.decode(features, queries, posterior.sample(generator))
        errors = functional.binary_cross_entropy_with_logits(logits, occupancy, reduction="none")
        return Elbo(reconstruction=errors.sum(dim=1), kl=posterior.kl_to_prior().sum(dim=1))

    def sample_latent(self, count: int, seed: int) -> Tensor:
        """Latents of new shapes, drawn from the prior: (count, Z), the same for a seed on every device."""
        noise = torch.randn(count, self.config.latent_size, generator=torch.Generator().manual_seed(seed))
        return noise.to(next(self.parameters()).device)


def _build_encoder(config: OccupancyNetworkConfig) -> nn.Module | None:
    match config.encoder:
        case "pointnet_resnet":
            return ResnetPointnet(config.feature_size, config.encoder_hidden)
        case "pointnet_simple":
            return SimplePointnet(config.feature_size, config.encoder_hidden)
        case "voxel_simple":
            return VoxelEncoder(config.feature_size, config.encoder_hidden)
        case "resnet18":
            return ImageEncoder(config.feature_size)
        case "index":
            return nn.Embedding(config.shape_count, config.feature_size)
        case "none":
            return None
