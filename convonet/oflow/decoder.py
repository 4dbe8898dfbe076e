"""The occupancy decoders of Occupancy Flow and ONet-4D, five residual blocks each (Niemeyer et al. 2019)."""

from __future__ import annotations

from typing import Literal

from convonet.layers.additive_decoder import AdditiveDecoder, CodeDecoder, DecoderSizes
from convonet.layers.conditional_decoder import ConditionalDecoder

DecoderKind = Literal["simple", "conditional"]


def build_decoder(
    kind: DecoderKind, code_size: int, latent_size: int, hidden_size: int, point_size: int = 3
) -> CodeDecoder:
    """The decoder in which codes are added once ("simple") or steer every normalization ("conditional")."""
    sizes = DecoderSizes(code_size, latent_size, hidden_size, blocks=5, point_size=point_size)
    return AdditiveDecoder(sizes) if kind == "simple" else ConditionalDecoder(sizes)
