"""The decoder of Mescheder et al. 2019: residual blocks whose normalization the shape decides.

Occupancy Flow asks it for the shape at t = 0, ONet-4D appends the time as a fourth coordinate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from convonet.layers.additive_decoder import CodeDecoder, DecoderSizes
from convonet.layers.conditional_batch_norm import ConditionalBatchNorm


class NormResnetBlock(nn.Module):
    """x W_s + fc_1(relu(norm_1(fc_0(relu(norm_0(x)))))).

    `fc_1` starts with zero weights, so that a fresh block adds a constant to its shortcut
    (Mescheder et al. 2019, supplement 1.1; the original's convolutions of width 1 are these linear maps).

    Args:
        norm: makes the normalization of so many channels.
        size_in, size_hidden, size_out: widths.
    """

    def __init__(
        self, norm: Callable[[int], nn.Module], size_in: int, size_hidden: int, size_out: int
    ) -> None:
        super().__init__()
        self.norm_0 = norm(size_in)
        self.fc_0 = nn.Linear(size_in, size_hidden)
        self.norm_1 = norm(size_hidden)
        self.fc_1 = nn.Linear(size_hidden, size_out)
        self.shortcut = nn.Linear(size_in, size_out, bias=False) if size_in != size_out else nn.Identity()
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor, *features: Tensor) -> Tensor:
        """(B, Q, size_in) activations and, if the normalization takes them, (B, C) features to (B, Q, size_out)."""
        hidden = self.fc_0(torch.relu(self.norm_0(x, *features)))
        residual = self.fc_1(torch.relu(self.norm_1(hidden, *features)))
        return self.shortcut(x) + residual  # type: ignore[no-any-return]


class ConditionalDecoder(CodeDecoder):
    """Features steer the normalization of every block.

    Args:
        sizes: of the layers.
        latent_joins_features: whether the latent is added to the features, or to the lifted position.
    """

    def __init__(self, sizes: DecoderSizes, latent_joins_features: bool = False) -> None:
        super().__init__(sizes)
        self.latent_joins_features = latent_joins_features
        width, features = sizes.hidden_size, sizes.feature_size
        if sizes.latent_size:
            self.fc_z = nn.Linear(sizes.latent_size, features if latent_joins_features else width)
        self.blocks = nn.ModuleList(
            NormResnetBlock(partial(ConditionalBatchNorm, features), width, width, width)
            for _ in range(sizes.blocks)
        )
        self.norm = ConditionalBatchNorm(features, width)

    def forward(self, queries: Tensor, features: Tensor, latent: Tensor) -> Tensor:
        """(B, Q, point_size) queries, (B, C) features and (B, Z) latent to (B, Q) logits."""
        x = self.fc_p(queries)
        if self.sizes.latent_size and self.latent_joins_features:
            features = features + self.fc_z(latent)
        elif self.sizes.latent_size:
            x = x + self.fc_z(latent)[:, None]
        for block in self.blocks:
            x = block(x, features)
        return self.fc_out(self.activation(self.norm(x, features))).squeeze(-1)  # type: ignore[no-any-return]
