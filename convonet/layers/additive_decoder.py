"""A position and codes to one logit: the codes are added to the lifted position, residual blocks follow.

The simplest decoder of Mescheder et al. 2019 and Niemeyer et al. 2019, and what all their decoders share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from convonet.layers.resnet_block import ResnetBlockFC


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of a decoder.

    Attributes:
        feature_size: C, width of the encoder's features; 0 for a network without an encoder.
        latent_size: Z, width of the latent; 0 for a network without one.
        hidden_size: width of every layer.
        blocks: residual blocks (hidden layers for `cbatchnorm_noresnet`).
        leaky: leaky instead of plain rectifiers of slope 0.2, but never inside residual blocks.
        point_size: coordinates of a query.
    """

    feature_size: int
    latent_size: int
    hidden_size: int
    blocks: int
    leaky: bool = False
    point_size: int = 3


class CodeDecoder(nn.Module):
    """What all decoders share: the layer that lifts positions, the one that makes the logit."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.fc_p = nn.Linear(sizes.point_size, sizes.hidden_size)
        self.fc_out = nn.Linear(sizes.hidden_size, 1)

    def activation(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.2) if self.sizes.leaky else torch.relu(x)


class AdditiveDecoder(CodeDecoder):
    """Features and latent are added to the lifted position; nothing is normalized."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__(sizes)
        width = sizes.hidden_size
        if sizes.latent_size:
            self.fc_z = nn.Linear(sizes.latent_size, width)
        if sizes.feature_size:
            self.fc_c = nn.Linear(sizes.feature_size, width)
        self.blocks = nn.ModuleList(self.make_block(width) for _ in range(sizes.blocks))

    @staticmethod
    def make_block(width: int) -> nn.Module:
        return ResnetBlockFC(width, width, width)

    def last_norm(self, x: Tensor) -> Tensor:
        return x

    def forward(self, queries: Tensor, features: Tensor, latent: Tensor) -> Tensor:
        """(B, Q, point_size) queries, (B, C) features and (B, Z) latent to (B, Q) logits."""
        x = self.fc_p(queries)
        if self.sizes.latent_size:
            x = x + self.fc_z(latent)[:, None]
        if self.sizes.feature_size:
            x = x + self.fc_c(features)[:, None]
        for block in self.blocks:
            x = block(x)
        return self.fc_out(self.activation(self.last_norm(x))).squeeze(-1)  # type: ignore[no-any-return]
