"""Occupancy decoders: a position and codes to a logit, with codes added once or by conditional batch norm.

Occupancy Flow asks them for the shape at t = 0 with x, y, z; ONet-4D appends the time as a fourth coordinate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.additive_decoder import AdditiveDecoder, DecoderSizes

DECODER_BLOCKS = 5


class ConditionalBatchNorm(nn.Module):
    """Batch norm of (B, F, N) whose scale and shift are affine in a code (de Vries et al. 2017)."""

    def __init__(self, code_size: int, features: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(code_size, features)
        self.beta = nn.Linear(code_size, features)
        self.bn = nn.BatchNorm1d(features, affine=False)
        nn.init.zeros_(self.gamma.weight)
        nn.init.ones_(self.gamma.bias)
        nn.init.zeros_(self.beta.weight)
        nn.init.zeros_(self.beta.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, F, N) features and (B, C) codes to (B, F, N)."""
        scaled = self.gamma(code).unsqueeze(2) * self.bn(x)
        return scaled + self.beta(code).unsqueeze(2)  # type: ignore[no-any-return]


class ConditionalBlock(nn.Module):
    """Pre-activation residual block with conditional batch norm; the last layer starts at zero."""

    def __init__(self, code_size: int, hidden: int) -> None:
        super().__init__()
        self.bn_0 = ConditionalBatchNorm(code_size, hidden)
        self.bn_1 = ConditionalBatchNorm(code_size, hidden)
        self.fc_0 = nn.Conv1d(hidden, hidden, 1)
        self.fc_1 = nn.Conv1d(hidden, hidden, 1)
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(B, F, N) features and (B, C) codes to (B, F, N)."""
        net = self.fc_0(torch.relu(self.bn_0(x, code)))
        return x + self.fc_1(torch.relu(self.bn_1(net, code)))  # type: ignore[no-any-return]


class ConditionalDecoder(nn.Module):
    """Every layer is normalised with a scale and a shift that the code gives (Mescheder et al. 2019)."""

    def __init__(self, point_size: int, code_size: int, latent_size: int, hidden: int) -> None:
        super().__init__()
        self.fc_z = nn.Linear(latent_size, hidden) if latent_size else None
        self.fc_p = nn.Conv1d(point_size, hidden, 1)
        self.blocks = nn.ModuleList(ConditionalBlock(code_size, hidden) for _ in range(DECODER_BLOCKS))
        self.bn = ConditionalBatchNorm(code_size, hidden)
        self.fc_out = nn.Conv1d(hidden, 1, 1)

    def forward(self, points: Tensor, code: Tensor, latent: Tensor) -> Tensor:
        """Occupancy logits.

        Args:
            points: (B, Q, point_size).
            code: (B, C) with C > 0.
            latent: (B, Z), Z may be 0.

        Returns:
            (B, Q) logits.
        """
        net = self.fc_p(points.transpose(1, 2))
        if self.fc_z is not None:
            net = net + self.fc_z(latent).unsqueeze(2)
        for block in self.blocks:
            net = block(net, code)
        return self.fc_out(torch.relu(self.bn(net, code))).squeeze(1)  # type: ignore[no-any-return]


def build_decoder(
    kind: str, point_size: int, code_size: int, latent_size: int, hidden: int
) -> AdditiveDecoder | ConditionalDecoder:
    """The decoder named "simple" or "conditional"; any other name is a ValueError."""
    if kind == "simple":
        sizes = DecoderSizes(code_size, latent_size, hidden, DECODER_BLOCKS, point_size=point_size)
        return AdditiveDecoder(sizes)
    if kind == "conditional":
        return ConditionalDecoder(point_size, code_size, latent_size, hidden)
    raise ValueError(f"decoder must be simple or conditional, not {kind!r}")
