"""Occupancy Flow: a shape at t = 0 and a velocity field that carries it through time (Niemeyer et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from convonet.layers.latent_gaussian import LatentGaussian
from convonet.oflow.decoder import DecoderKind, build_decoder
from convonet.oflow.encoders import (
    FirstFramePointnet,
    LatentPointnet,
    ResnetPointnetPair,
    TemporalResnetPointnet,
)
from convonet.oflow.image_encoders import ConvSequenceEncoder, FirstFrameResNet18
from convonet.oflow.ode import Carrier, SolverConfig
from convonet.oflow.velocity import VelocityField
from foundation.errors import SettingError
from foundation.settings import check_fields


@dataclass(frozen=True)
class OccupancyFlowConfig:
    """Parts and sizes of an `OccupancyFlow`.

    Attributes:
        frames: L, frames of a sequence; fixes the input of the trajectory encoders.
        spatial_encoder: of the first frame: "pointnet", "resnet18", or None.
        temporal_encoder: of the motion: "pointnet" (trajectories), "pointnet_pair" (the two end clouds),
            "conv3d" (images), or None.
        decoder: of the shape at t = 0: "simple", "conditional" (conditional batch norm), or None where
            shapes are given and only moved.
        code_size: C, of the codes that the encoders give.
        latent_size: Z, of the Gaussian latent codes of shape (z) and motion (z_t); 0: none.
        spatial_hidden: width of the spatial PointNet.
        temporal_hidden: width of the temporal encoder: half the widest layer of a PointNet, or the first
            channels of the 3D convolutions.
        latent_hidden: width of the latent encoders.
        decoder_hidden: width of the decoder.
        velocity_hidden: width of the velocity field.
        velocity_blocks: residual blocks of the velocity field.
        solver: how trajectories are integrated.
    """

    kind: ClassVar[str] = "oflow"

    frames: int = 17
    spatial_encoder: Literal["pointnet", "resnet18"] | None = "pointnet"
    temporal_encoder: Literal["pointnet", "pointnet_pair", "conv3d"] | None = "pointnet"
    decoder: DecoderKind | None = "conditional"
    code_size: int = 512
    latent_size: int = 0
    spatial_hidden: int = 512
    temporal_hidden: int = 512
    latent_hidden: int = 128
    decoder_hidden: int = 256
    velocity_hidden: int = 512
    velocity_blocks: int = 5
    solver: SolverConfig = field(default_factory=SolverConfig)

    def __post_init__(self) -> None:
        check_fields(self, but=("frames", "latent_size"))
        if self.frames < 2:
            raise SettingError(f"a sequence has at least 2 frames, not {self.frames}")
        if self.latent_size < 0:
            raise SettingError(f"latent_size must not be negative, not {self.latent_size}")
        if self.decoder == "conditional" and self.spatial_encoder is None:
            raise SettingError("a conditional decoder needs a spatial encoder; take the simple decoder")
        if self.temporal_encoder == "pointnet_pair" and self.code_size % 2:
            raise SettingError(f"pointnet_pair halves the code: code_size must be even, not {self.code_size}")

    @property
    def spatial_size(self) -> int:
        """Length of the spatial code; 0 without a spatial encoder."""
        return self.code_size if self.spatial_encoder else 0

    @property
    def temporal_size(self) -> int:
        """Length of the temporal code; 0 without a temporal encoder."""
        return self.code_size if self.temporal_encoder else 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OccupancyFlowConfig:
        """The inverse of `dataclasses.asdict`, for configurations stored as JSON."""
        return cls(**{**values, "solver": SolverConfig(**values["solver"])})

    def build(self) -> OccupancyFlow:
        """A network with fresh weights."""
        return OccupancyFlow(self)


@dataclass(frozen=True)
class FlowCodes:
    """All that a network knows about a batch of sequences.

    Attributes:
        spatial: (B, C) code of the shape, or (B, 0).
        temporal: (B, C) code of the motion, or (B, 0).
        shape: (B, Z) latent code z of the shape, or (B, 0).
        motion: (B, Z) latent code z_t of the motion, or (B, 0).
    """

    spatial: Tensor
    temporal: Tensor
    shape: Tensor
    motion: Tensor

    def moving_like(self, other: FlowCodes) -> FlowCodes:
        """These shapes with the motions of `other`."""
        return replace(self, temporal=other.temporal, motion=other.motion)


class OccupancyFlow(nn.Module):
    """Encoders, the velocity field and the decoder of the shape at t = 0.

    Coordinates are those of the unit cube centered at 0 that the first frame is normalized to; times run from
    0 (first frame) to 1 (last frame).
    """

    def __init__(self, config: OccupancyFlowConfig) -> None:
        super().__init__()
        self.config = config
        code, latent = config.code_size, config.latent_size
        self.spatial_encoder: nn.Module | None = None
        if config.spatial_encoder == "pointnet":
            self.spatial_encoder = FirstFramePointnet(code, config.spatial_hidden)
        elif config.spatial_encoder == "resnet18":
            self.spatial_encoder = FirstFrameResNet18(code)
        self.temporal_encoder: nn.Module | None = None
        if config.temporal_encoder == "pointnet":
            self.temporal_encoder = TemporalResnetPointnet(code, config.frames, config.temporal_hidden)
        elif config.temporal_encoder == "pointnet_pair":
            self.temporal_encoder = ResnetPointnetPair(code, config.temporal_hidden)
        elif config.temporal_encoder == "conv3d":
            self.temporal_encoder = ConvSequenceEncoder(code, config.temporal_hidden)
        self.shape_posterior: LatentPointnet | None = None
        self.motion_posterior: LatentPointnet | None = None
        if latent:
            motion_code, hidden = config.temporal_size, config.latent_hidden
            self.shape_posterior = LatentPointnet(latent, motion_code, 1, hidden)
            self.motion_posterior = LatentPointnet(latent, motion_code, config.frames, hidden)
        self.velocity_field = VelocityField(
            config.temporal_size, latent, config.velocity_hidden, config.velocity_blocks
        )
        self.decoder: nn.Module | None = None
        if config.decoder:
            self.decoder = build_decoder(config.decoder, config.spatial_size, latent, config.decoder_hidden)

    def encode(self, inputs: Tensor) -> FlowCodes:
        """Codes of sequences; latent codes are the means of their posteriors.

        Args:
            inputs: (B, L, N, 3) corresponding points, (B, 2, N, 3) the two end clouds, (B, L, 3, H, W) images
                in [0, 1], or (B, 1, 0) for a network without encoders.

        Raises:
            ValueError: if a trajectory encoder is given another number of frames than it was made for.
        """
        codes = self._encode_conditions(inputs)
        shape, motion = self.posteriors(inputs, codes)
        return replace(codes, shape=shape.mean, motion=motion.mean)

    def posteriors(self, inputs: Tensor, codes: FlowCodes) -> tuple[LatentGaussian, LatentGaussian]:
        """Posteriors of the latent codes of shape and motion; of size (B, 0) without latent codes."""
        if self.shape_posterior is None or self.motion_posterior is None:
            nothing = LatentGaussian(inputs.new_empty(len(inputs), 0), inputs.new_empty(len(inputs), 0))
            return nothing, nothing
        shape: LatentGaussian = self.shape_posterior(inputs, codes.temporal)
        motion: LatentGaussian = self.motion_posterior(inputs, codes.temporal)
        return shape, motion

    def encode_with_posteriors(
        self, inputs: Tensor, generator: torch.Generator | None = None
    ) -> tuple[FlowCodes, LatentGaussian, LatentGaussian]:
        """Codes whose latent parts are drawn from their posteriors, as training does, and these posteriors."""
        codes = self._encode_conditions(inputs)
        shape, motion = self.posteriors(inputs, codes)
        drawn = replace(codes, shape=shape.sample(generator), motion=motion.sample(generator))
        return drawn, shape, motion

    def encode_with_prior(
        self, inputs: Tensor, sample: bool = True, generator: torch.Generator | None = None
    ) -> FlowCodes:
        """Codes whose latent parts are drawn from N(0, 1), or 0 (its mean) if `sample` is false.

        A generative network without encoders takes only the batch size from `inputs`, (B, 1, 0).
        """
        codes = self._encode_conditions(inputs)
        standard = codes.spatial.new_zeros(len(inputs), self.config.latent_size)
        if not sample:
            return replace(codes, shape=standard, motion=standard)
        prior = LatentGaussian(standard, standard)
        return replace(codes, shape=prior.sample(generator), motion=prior.sample(generator))

    def velocity(self, codes: FlowCodes, points: Tensor, times: Tensor) -> Tensor:
        """(B, N, 3) velocities at (B, N, 3) points and (B,) times, per duration of the sequence."""
        return self.velocity_field(points, times, codes.temporal, codes.motion)  # type: ignore[no-any-return]

    def transport(self, codes: FlowCodes, points: Tensor, times: Tensor, start: float = 0.0) -> Tensor:
        """Where points go, or where they came from.

        Args:
            codes: of B sequences.
            points: (B, N, 3) positions at time `start`.
            times: (T,) the times asked for, before or after `start`, in any order.
            start: time of the given positions.

        Returns:
            (B, T, N, 3) positions at `times`.

        Raises:
            IntegrationError: if the solver cannot finish.
        """
        carrier = self._carrier(codes)
        starts = points.new_full((len(points),), start)
        shift = times.to(points) - start
        ahead = carrier.carry(points, starts, shift.clamp(min=0), 1)
        behind = carrier.carry(points, starts, (-shift).clamp(min=0), -1)
        moved = torch.where((shift >= 0).view(-1, 1, 1, 1), ahead, behind)
        return moved.transpose(0, 1)

    def transport_to_first(self, codes: FlowCodes, points: Tensor, times: Tensor) -> Tensor:
        """Follow (B, N, 3) points back from the time (B,) of each item to t = 0: (B, N, 3).

        Raises:
            ValueError: if a time is before 0.
            IntegrationError: if the solver cannot finish.
        """
        paths = self._carrier(codes).carry(points, times, times.to(points), -1)
        items = torch.arange(len(points), device=points.device)
        return paths[items, items]

    def decode(self, codes: FlowCodes, queries: Tensor, times: Tensor | None = None) -> Tensor:
        """Occupancy logits (B, Q) of (B, Q, 3) queries at the time (B,) of each item; None: all at t = 0.

        A query is occupied at time t if the place that it came from is occupied at t = 0.

        Raises:
            ValueError: if the network has no decoder, or a time is before 0.
            IntegrationError: if the solver cannot finish.
        """
        if self.decoder is None:
            raise ValueError("this network has no decoder: it moves given shapes (see convonet.oflow.motion)")
        if times is not None:
            queries = self.transport_to_first(codes, queries, times)
        return self.decoder(queries, codes.spatial, codes.shape)  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor, queries: Tensor, times: Tensor | None = None) -> Tensor:
        """Encode and decode in one call: (B, Q) logits."""
        return self.decode(self.encode(inputs), queries, times)

    def _encode_conditions(self, inputs: Tensor) -> FlowCodes:
        nothing = inputs.new_empty(len(inputs), 0)
        return FlowCodes(
            spatial=nothing if self.spatial_encoder is None else self.spatial_encoder(inputs),
            temporal=nothing if self.temporal_encoder is None else self.temporal_encoder(inputs),
            shape=nothing,
            motion=nothing,
        )

    def _carrier(self, codes: FlowCodes) -> Carrier:
        return Carrier(self.velocity_field, codes.temporal, codes.motion, self.config.solver)
