"""Encoders of image sequences: ResNet-18 for the first frame, 3D convolutions for the motion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.layers.resnet18 import ImageEncoder

_CONV3D_WIDTHS = (1, 2, 4, 8, 16, 16)
_CONV3D_TIME_STRIDES = (1, 2, 1, 2, 2, 2)


class FirstFrameResNet18(ImageEncoder):
    """Spatial encoder of images: the first frame of (B, L, 3, H, W) in [0, 1] to a code (B, code_size)."""

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, L, 3, H, W) to (B, code_size)."""
        return super().forward(sequence[:, 0])


class ConvSequenceEncoder(nn.Module):
    """Temporal encoder of images: six 3D convolutions over (time, height, width), mean, linear.

    Each halves the image; four of them halve time as well. Images enter as they are, in [0, 1].
    """

    def __init__(self, code_size: int, hidden: int) -> None:
        super().__init__()
        widths = [3, *(factor * hidden for factor in _CONV3D_WIDTHS)]
        self.convs = nn.ModuleList(
            nn.Conv3d(widths[i], widths[i + 1], 3, stride=(time_stride, 2, 2), padding=1)
            for i, time_stride in enumerate(_CONV3D_TIME_STRIDES)
        )
        self.fc_out = nn.Linear(widths[-1], code_size)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, L, 3, H, W) to (B, code_size)."""
        net = self.convs[0](sequence.transpose(1, 2))
        for conv in self.convs[1:]:
            net = conv(torch.relu(net))
        return self.fc_out(torch.relu(net.mean(dim=(2, 3, 4))))  # type: ignore[no-any-return]
