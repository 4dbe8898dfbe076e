"""Encoders of image sequences: ResNet-18 for the first frame, 3D convolutions for the motion.

ResNet-18 (He et al. 2016) is written out with the parameter names of torchvision, so that ImageNet weights
from there load under `features.`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_STAGE_WIDTHS = (64, 128, 256, 512)
_CONV3D_WIDTHS = (1, 2, 4, 8, 16, 16)
_CONV3D_TIME_STRIDES = (1, 2, 1, 2, 2, 2)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a shortcut that is projected where the shape changes."""

    def __init__(self, size_in: int, size_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size_in, size_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size_out)
        self.conv2 = nn.Conv2d(size_out, size_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or size_in != size_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(size_in, size_out, 1, stride, bias=False), nn.BatchNorm2d(size_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, size_in, H, W) to (B, size_out, H / stride, W / stride)."""
        net = torch.relu(self.bn1(self.conv1(x)))
        net = self.bn2(self.conv2(net))
        return torch.relu(net + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 up to the mean over the image: (B, 3, H, W) to (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        size_in = 64
        for stage, width in enumerate(_STAGE_WIDTHS, start=1):
            first = BasicBlock(size_in, width, stride=1 if stage == 1 else 2)
            self.add_module(f"layer{stage}", nn.Sequential(first, BasicBlock(width, width, stride=1)))
            size_in = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features of images that were normalised with ImageNet's mean and deviation."""
        net = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for stage in range(1, len(_STAGE_WIDTHS) + 1):
            net = self.get_submodule(f"layer{stage}")(net)
        return net.mean(dim=(2, 3))  # type: ignore[no-any-return]


class FirstFrameResNet18(nn.Module):
    """Spatial encoder of images: the first frame of (B, L, 3, H, W) in [0, 1] to a code (B, code_size)."""

    mean: Tensor
    std: Tensor

    def __init__(self, code_size: int) -> None:
        super().__init__()
        self.features = ResNet18()
        self.fc = nn.Linear(512, code_size)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, L, 3, H, W) to (B, code_size)."""
        first = (sequence[:, 0] - self.mean) / self.std
        return self.fc(self.features(first))  # type: ignore[no-any-return]


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
