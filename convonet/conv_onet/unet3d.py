"""The U-Net that completes a feature volume (Cicek et al. 2016, as used by Peng et al. 2020).

Every convolution is preceded by a group norm, whose statistics run over the whole volume. So the network is
equivariant to shifts by its pooling factor only as long as nothing comes near the border, and every output
depends a little on every input, however far. For tiles that must agree, see `convonet.layers.voxel_unet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convonet.conv_onet.unet import UNet

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
        """(B, channels_in, D, H, W) to (B, channels_out, D, H, W).

        The norm gets a contiguous volume: torch's group norm of channels-last volumes on a processor loses two to
        three digits of its variances.
        """
        return torch.relu(self.conv(self.norm(x.contiguous())))


class NormConvPair(nn.Module):
    """Two `NormConv` with given channels between them."""

    def __init__(self, channels_in: int, channels_between: int, channels_out: int) -> None:
        super().__init__()
        self.first = NormConv(channels_in, channels_between)
        self.second = NormConv(channels_between, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, D, H, W) to (B, channels_out, D, H, W)."""
        return self.second(self.first(x))  # type: ignore[no-any-return]


class UNet3DGroupNorm(UNet):
    """3D U-Net with max pooling on the way down and nearest-neighbor upsampling on the way up.

    Args:
        channels: of the input and of the output.
        levels: resolutions; the coarsest has `base_channels * 2 ** (levels - 1)` channels.
        base_channels: channels at the finest resolution.

    Raises:
        ValueError: if a number of channels of 8 or more is not a multiple of 8.
    """

    def __init__(self, channels: int, levels: int, base_channels: int) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            NormConvPair(wide_in, max(wide // 2, wide_in), wide)
            for wide_in, wide in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            NormConvPair(widths[level] + widths[level + 1], widths[level], widths[level])
            for level in reversed(range(levels - 1))
        )
        self.pool = nn.MaxPool3d(2)
        self.final = nn.Conv3d(widths[0], channels, 1)

    def ascend(self, step: nn.Module, coarse: Tensor, skip: Tensor) -> Tensor:
        upsampled = F.interpolate(coarse, size=skip.shape[2:], mode="nearest")
        return step(torch.cat([skip, upsampled], dim=1))  # type: ignore[no-any-return]
