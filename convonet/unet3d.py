"""A 3D U-Net whose every output voxel depends on a known, bounded neighbourhood.

It differs from the U-Net of Cicek et al. 2016 in what tiling needs: the normalisation acts on the
channels of one voxel (no statistics over the crop), skips are added rather than concatenated, and few
convolutions at full resolution keep the receptive field small and the cost low.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class VoxelNorm(nn.Module):
    """Layer normalisation over the channels of each voxel: local, so that crops agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape."""
        last = x.permute(0, 2, 3, 4, 1)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(last, (x.shape[1],), weight, bias).permute(0, 4, 1, 2, 3)


class ConvBlock(nn.Module):
    """3x3x3 convolution, normalisation, ReLU; added to its input where the widths allow."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = VoxelNorm(channels_out)
        self.is_residual = channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, D, H, W) to (B, C_out, D, H, W)."""
        y = torch.relu(self.norm(self.conv(x)))
        return x + y if self.is_residual else y


class UNet3D(nn.Module):
    """Encoder and decoder over `levels` resolutions.

    Args:
        channels: width of the input, of the output and of the finest level; doubled at each level.
        levels: number of resolutions; the grid's sides must be multiples of 2 ** (levels - 1).
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]
        self.levels = levels
        self.encode_finest = ConvBlock(channels, channels)
        self.encode = nn.ModuleList(
            nn.Sequential(
                ConvBlock(widths[level - 1], widths[level]), ConvBlock(widths[level], widths[level])
            )
            for level in range(1, levels)
        )
        self.reduce = nn.ModuleList(
            nn.Conv3d(widths[level], widths[level - 1], 1) for level in range(1, levels)
        )
        self.decode = nn.ModuleList(
            ConvBlock(widths[level - 1], widths[level - 1]) for level in range(1, levels)
        )
        self.out = nn.Conv3d(channels, channels, 1)

    @property
    def pooling_factor(self) -> int:
        """Voxels of the finest level along a side of one voxel of the coarsest."""
        return int(2 ** (self.levels - 1))

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels, along an axis, at which an input voxel still reaches an output voxel.

        Walks one output voxel's interval down the decoder and the encoder for each of its positions on
        the pooling grid; `tests/convonet/test_unet3d.py` compares it with the measured influence.
        """
        return max(self._reach(position) for position in range(self.pooling_factor))

    def _reach(self, position: int) -> int:
        intervals: list[tuple[int, int]] = []
        low = high = position
        for _ in range(self.levels - 1):  # down the decoder: one convolution a level
            low, high = low - 1, high + 1
            intervals.append((low, high))
            low, high = low // 2, high // 2
        low, high = low - 2, high + 2  # the coarsest level's two convolutions
        for level in range(self.levels - 2, -1, -1):
            low, high = 2 * low, 2 * high + 1  # max pooling reads both children
            skip_low, skip_high = intervals[level]
            convolutions = 1 if level == 0 else 2
            low, high = min(low, skip_low) - convolutions, max(high, skip_high) + convolutions
        return max(position - low, high - position)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C, D, H, W)."""
        skips = [self.encode_finest(x)]
        for encode in self.encode:
            skips.append(encode(F.max_pool3d(skips[-1], 2)))
        y = skips.pop()
        for reduce, decode in zip(reversed(self.reduce), reversed(self.decode), strict=True):
            y = skips.pop() + F.interpolate(reduce(y), scale_factor=2.0, mode="nearest")
            y = decode(y)
        return self.out(y)  # type: ignore[no-any-return]
