"""The U-Net that completes a feature volume (Cicek et al. 2016, as used by Peng et al. 2020).

Every convolution is preceded by a group norm, whose statistics run over the whole volume. So the network is
equivariant to shifts by its pooling factor only as long as nothing comes near the border, and every output
depends a little on every input, however far. For tiles that must agree, see `convonet.unet3d`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convonet.conv_onet.reach import unet_reach

GROUPS = 8


class NormConv(nn.Module):
    """Group norm, 3 x 3 x 3 convolution without bias, rectifier.

    Eight groups, or one where there are fewer than eight channels.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        groups = GROUPS if channels_in >= GROUPS else 1
        if channels_in % groups:
            raise ValueError(
                f"{channels_in} channels do not divide into {groups} groups; use a multiple of 8"
            )
        self.norm = nn.GroupNorm(groups, channels_in)
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, D, H, W) to (B, channels_out, D, H, W)."""
        return torch.relu(self.conv(self.norm(x)))


class NormConvPair(nn.Module):
    """Two `NormConv` with given channels between them."""

    def __init__(self, channels_in: int, channels_between: int, channels_out: int) -> None:
        super().__init__()
        self.first = NormConv(channels_in, channels_between)
        self.second = NormConv(channels_between, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, D, H, W) to (B, channels_out, D, H, W)."""
        return self.second(self.first(x))  # type: ignore[no-any-return]


class UNet3DGroupNorm(nn.Module):
    """3D U-Net with max pooling on the way down and nearest-neighbour upsampling on the way up.

    Args:
        channels: of the input and of the output.
        levels: resolutions; the coarsest has `base_channels * 2 ** (levels - 1)` channels.
        base_channels: channels at the finest resolution.

    Raises:
        ValueError: if a number of channels of 8 or more is not a multiple of 8.
    """

    def __init__(self, channels: int, levels: int, base_channels: int) -> None:
        super().__init__()
        self.levels = levels
        widths = [base_channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            NormConvPair(wide_in, max(wide // 2, wide_in), wide)
            for wide_in, wide in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            NormConvPair(widths[level] + widths[level + 1], widths[level], widths[level])
            for level in reversed(range(levels - 1))
        )
        self.final = nn.Conv3d(widths[0], channels, 1)

    @property
    def pooling_factor(self) -> int:
        """Sides of the volume are multiples of this number."""
        return 1 << (self.levels - 1)

    @property
    def receptive_radius(self) -> int:
        """Cells around an output that the convolutions reach; the group norms' statistics are global."""
        return unet_reach(self.levels)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape; sides are multiples of `pooling_factor`."""
        skips: list[Tensor] = []
        x = volume
        for level, convs in enumerate(self.down):
            x = convs(x if level == 0 else F.max_pool3d(x, 2))
            skips.append(x)
        for convs, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            coarse = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = convs(torch.cat([skip, coarse], dim=1))
        return self.final(x)  # type: ignore[no-any-return]
