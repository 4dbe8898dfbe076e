"""ONet-4D, the baseline: an occupancy network over x, y, z and t, without correspondences.

Niemeyer et al. 2019, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from convonet.oflow.decoder import DecoderKind, build_decoder
from convonet.oflow.encoders import TemporalResnetPointnet
from convonet.oflow.image_encoders import ConvSequenceEncoder
from convonet.oflow.losses import OccupancySamples
from foundation.errors import SettingError
from foundation.settings import check_fields


@dataclass(frozen=True)
class OccupancyNetwork4DConfig:
    """Parts and sizes of an `OccupancyNetwork4D`.

    Attributes:
        frames: L, frames of a sequence; fixes the input of the trajectory encoder.
        temporal_encoder: "pointnet" (trajectories) or "conv3d" (images).
        decoder: "simple" or "conditional" (conditional batch norm).
        code_size: C, of the code.
        temporal_hidden: width of the encoder.
        decoder_hidden: width of the decoder.
    """

    kind: ClassVar[str] = "onet4d"

    frames: int = 17
    temporal_encoder: Literal["pointnet", "conv3d"] = "pointnet"
    decoder: DecoderKind = "conditional"
    code_size: int = 512
    temporal_hidden: int = 512
    decoder_hidden: int = 256

    def __post_init__(self) -> None:
        check_fields(self, but=("frames",))
        if self.frames < 2:
            raise SettingError(f"a sequence has at least 2 frames, not {self.frames}")

    def build(self) -> OccupancyNetwork4D:
        """A network with fresh weights."""
        return OccupancyNetwork4D(self)


class OccupancyNetwork4D(nn.Module):
    """One code for the whole sequence; the decoder sees the time as a fourth coordinate."""

    def __init__(self, config: OccupancyNetwork4DConfig) -> None:
        super().__init__()
        self.config = config
        self.temporal_encoder: nn.Module = (
            TemporalResnetPointnet(config.code_size, config.frames, config.temporal_hidden)
            if config.temporal_encoder == "pointnet"
            else ConvSequenceEncoder(config.code_size, config.temporal_hidden)
        )
        self.decoder = build_decoder(config.decoder, config.code_size, 0, config.decoder_hidden, point_size=4)

    def encode(self, inputs: Tensor) -> Tensor:
        """Codes (B, C) of (B, L, N, 3) corresponding points or (B, L, 3, H, W) images in [0, 1]."""
        return self.temporal_encoder(inputs)  # type: ignore[no-any-return]

    def decode(self, code: Tensor, queries: Tensor, times: Tensor | None = None) -> Tensor:
        """Occupancy logits (B, Q) of (B, Q, 3) queries at the time (B,) of each item; None: all at t = 0."""
        if times is None:
            times = queries.new_zeros(len(queries))
        time_axis = times.to(queries).view(-1, 1, 1).expand(len(queries), queries.shape[1], 1)
        points = torch.cat([queries, time_axis], dim=-1)
        return self.decoder(points, code, code.new_empty(len(code), 0))  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor, queries: Tensor, times: Tensor | None = None) -> Tensor:
        """Encode and decode in one call: (B, Q) logits."""
        return self.decode(self.encode(inputs), queries, times)


def onet4d_loss(network: OccupancyNetwork4D, inputs: Tensor, samples: OccupancySamples) -> Tensor:
    """Mean binary cross entropy of the occupancy at a random frame of each sequence."""
    logits = network(inputs, samples.queries, samples.times)
    return binary_cross_entropy_with_logits(logits, samples.occupancy)
