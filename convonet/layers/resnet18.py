"""Pictures to features: ResNet-18 (He et al. 2016) with torchvision's entry names, and a linear layer.

The network starts from random weights; `load_imagenet_weights` gives it those of ImageNet from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convonet.errors import WeightsError
from convonet.original_states import check_entries, is_counter
from foundation.local_paths import local_path

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAST_CHANNELS = 512


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, which is projected where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H / stride, W / stride)."""
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 up to its global average; entries are named as torchvision names them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalized images to (B, 512)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return torch.mean(x, dim=(2, 3))


class ImageEncoder(nn.Module):
    """ResNet-18 on images normalized as ImageNet's, then a linear layer. The original's `resnet18`."""

    mean: Tensor
    std: Tensor

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.features = ResNet18()
        self.fc = nn.Linear(LAST_CHANNELS, feature_size)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB images in [0, 1], 224 x 224 in the original, to (B, feature_size) features.

        Raises:
            ValueError: if the images are not (B, 3, H, W).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
        return self.fc(self.features((images - self.mean) / self.std))  # type: ignore[no-any-return]


def load_imagenet_weights(network: nn.Module, path: Path) -> None:
    """Start the image encoders of a network from a ResNet-18 trained on ImageNet.

    Args:
        network: an image encoder or a network that has one; its convolutions and batch norms are overwritten, its
            linear layer stays as it is.
        path: a state dict with torchvision's names, as `torch.save` or safetensors writes it. Pickles are
            read with `weights_only=True`, so that a file cannot run code.

    Raises:
        WeightsError: if the file is missing or damaged or holds no ResNet-18, or the network has no image encoder.
    """
    encoders = [module for module in network.modules() if isinstance(module, ImageEncoder)]
    if not encoders:
        raise WeightsError(
            f"{path}: is for networks that see a picture through ResNet-18 (presets onet_img, oflow_img and "
            "oflow_img_w_correspond); this network has no such encoder"
        )
    state = _read_state_dict(local_path(path))
    backbone = {name: value for name, value in state.items() if name not in ("fc.weight", "fc.bias")}
    own = encoders[0].features.state_dict()
    expected = {name: tuple(value.shape) for name, value in own.items()}
    cure = "Pass the state dict of torchvision's resnet18."
    check_entries(expected, backbone, str(path), cure)
    counters = {name: torch.zeros_like(value) for name, value in own.items() if is_counter(name)}
    for encoder in encoders:
        encoder.features.load_state_dict({**counters, **backbone})


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    cure = "pass a state dict of torchvision's resnet18 written by torch.save or safetensors"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; {cure}") from error
    except Exception as error:  # the parsers of zip and pickle raise whatever damage leads them to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not readable as weights ({reason}); {cure}") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{path}: holds no state dict of tensors; {cure}")
    return state
