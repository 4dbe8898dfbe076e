"""Pre-activation residual blocks over query points, with plain or conditional batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.onet.conditional_batch_norm import ConditionalBatchNorm, PointBatchNorm


class ConditionalResnetBlock(nn.Module):
    """x W_s + fc_1(relu(norm_1(fc_0(relu(norm_0(x, c))), c))), normalised conditionally on the shape.

    `fc_1` starts with zero weights, so that a fresh block adds a constant to its shortcut
    (Mescheder et al. 2019, supplement 1.1; the original's convolutions of width 1 are these linear maps).
    """

    def __init__(self, feature_size: int, size_in: int, size_hidden: int, size_out: int) -> None:
        super().__init__()
        self.norm_0 = ConditionalBatchNorm(feature_size, size_in)
        self.fc_0 = nn.Linear(size_in, size_hidden)
        self.norm_1 = ConditionalBatchNorm(feature_size, size_hidden)
        self.fc_1 = nn.Linear(size_hidden, size_out)
        self.shortcut = nn.Linear(size_in, size_out, bias=False) if size_in != size_out else nn.Identity()
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, Q, size_in) activations and (B, C) features to (B, Q, size_out)."""
        hidden = self.fc_0(torch.relu(self.norm_0(x, features)))
        residual = self.fc_1(torch.relu(self.norm_1(hidden, features)))
        return self.shortcut(x) + residual  # type: ignore[no-any-return]


class BatchNormResnetBlock(nn.Module):
    """The same block with plain batch normalisation: x W_s + fc_1(relu(norm_1(fc_0(relu(norm_0(x))))))."""

    def __init__(self, size_in: int, size_hidden: int, size_out: int) -> None:
        super().__init__()
        self.norm_0 = PointBatchNorm(size_in)
        self.fc_0 = nn.Linear(size_in, size_hidden)
        self.norm_1 = PointBatchNorm(size_hidden)
        self.fc_1 = nn.Linear(size_hidden, size_out)
        self.shortcut = nn.Linear(size_in, size_out, bias=False) if size_in != size_out else nn.Identity()
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, size_in) to (B, Q, size_out)."""
        hidden = self.fc_0(torch.relu(self.norm_0(x)))
        residual = self.fc_1(torch.relu(self.norm_1(hidden)))
        return self.shortcut(x) + residual  # type: ignore[no-any-return]
