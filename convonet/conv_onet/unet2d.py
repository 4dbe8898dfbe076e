"""The U-Net that completes feature planes (Ronneberger et al. 2015, as used by Peng et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.conv_onet.unet import UNet


class ConvPair(nn.Module):
    """Two 3 x 3 convolutions, each followed by a rectifier; no normalization."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H, W)."""
        return torch.relu(self.conv2(torch.relu(self.conv1(x))))


class UpStep(nn.Module):
    """Double the resolution, append the features of the way down, convolve twice."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)
        self.convs = ConvPair(2 * channels_out, channels_out)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, channels_in, H, W) and (B, channels_out, 2H, 2W) to (B, channels_out, 2H, 2W)."""
        return self.convs(torch.cat([self.upconv(coarse), skip], dim=1))  # type: ignore[no-any-return]


class UNet2D(UNet):
    """Equivariant to shifts by 2 ** (levels - 1) cells away from the border; see nothing beyond its reach.

    Args:
        channels: of the input and of the output.
        levels: resolutions; the coarsest has `base_channels * 2 ** (levels - 1)` channels.
        base_channels: channels at the finest resolution.
    """

    def __init__(self, channels: int, levels: int, base_channels: int) -> None:
        super().__init__()
        widths = [base_channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            ConvPair(wide_in, wide) for wide_in, wide in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            UpStep(widths[level + 1], widths[level]) for level in reversed(range(levels - 1))
        )
        self.pool = nn.MaxPool2d(2)
        self.final = nn.Conv2d(widths[0], channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
