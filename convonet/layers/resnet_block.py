"""The fully connected residual block of the point encoders and the decoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResnetBlockFC(nn.Module):
    """Pre-activation residual block: x W_s + fc_1(relu(fc_0(relu(x)))).

    `fc_1` starts at zero, so that a fresh block is its shortcut (Mescheder et al. 2019, supplement 1.1).
    """

    def __init__(self, size_in: int, size_out: int, size_hidden: int) -> None:
        super().__init__()
        self.fc_0 = nn.Linear(size_in, size_hidden)
        self.fc_1 = nn.Linear(size_hidden, size_out)
        self.shortcut = nn.Linear(size_in, size_out, bias=False) if size_in != size_out else nn.Identity()
        nn.init.zeros_(self.fc_1.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., size_in) to (..., size_out)."""
        hidden = self.fc_0(torch.relu(x))
        residual = self.fc_1(torch.relu(hidden))
        return self.shortcut(x) + residual  # type: ignore[no-any-return]


def resnet_blocks(count: int, size_in: int, size: int) -> nn.ModuleList:
    """So many blocks from `size_in` to `size` channels, as wide inside."""
    return nn.ModuleList(ResnetBlockFC(size_in, size, size) for _ in range(count))
