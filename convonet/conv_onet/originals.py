"""State dicts of the original repository (autonomousvision/convolutional_occupancy_networks) onto ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from convonet.conv_onet.network import ConvOnetConfig
from convonet.errors import WeightsError

# From our names to the original's; every rule that matches applies, in this order.
_RENAMES = [
    (r"^encoder\.trunk\.", "encoder."),
    (r"^decoder\.head\.", "decoder."),
    # the planes' U-Net
    (r"^encoder\.grids\.unet2d\.down\.(\d+)\.", r"encoder.unet.down_convs.\1."),
    (r"^encoder\.grids\.unet2d\.up\.(\d+)\.(?:convs\.)?", r"encoder.unet.up_convs.\1."),
    (r"^encoder\.grids\.unet2d\.final\.", "encoder.unet.conv_final."),
    # the volume's U-Net
    (r"^encoder\.grids\.unet3d\.down\.(\d+)\.", r"encoder.unet3d.encoders.\1.basic_module."),
    (r"^encoder\.grids\.unet3d\.up\.(\d+)\.", r"encoder.unet3d.decoders.\1.basic_module."),
    (r"\.basic_module\.first\.", ".basic_module.SingleConv1."),
    (r"\.basic_module\.second\.", ".basic_module.SingleConv2."),
    (r"\.(SingleConv\d)\.norm\.", r".\1.groupnorm."),
    (r"^encoder\.grids\.unet3d\.final\.", "encoder.unet3d.final_conv."),
    # PointNet++
    (r"^encoder\.abstract(\d)\.", r"encoder.sa\1."),
    (r"^encoder\.propagate(\d)\.", r"encoder.fp\1."),
    (r"^(encoder\.(?:sa|fp)\d)\.linears\.", r"\1.mlp_convs."),
    (r"^(encoder\.(?:sa|fp)\d)\.norms\.", r"\1.mlp_bns."),
]


def original_name(name: str) -> str:
    """The original's name of one of our entries."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def original_shape(name: str, shape: torch.Size) -> torch.Size:
    """The original's shape: its layers shared by points are convolutions of width 1 where ours are linear.

    Args:
        name: in the original.
        shape: of our entry.
    """
    if name.endswith(".weight") and ".mlp_convs." in name:
        ones = (1, 1) if ".sa" in name else (1,)
        return torch.Size((*shape, *ones))
    return shape


def from_original(state: Mapping[str, Tensor], config: ConvOnetConfig) -> dict[str, Tensor]:
    """Map a network of the original repository onto ours.

    Args:
        state: the `model` entry of one of its checkpoints.
        config: of the network; a preset for the published weights.

    Returns:
        A state dict for `config.build()`. Every entry of both sides is used.

    Raises:
        WeightsError: listing what is missing, unexpected or of another shape, by the original's names.
    """
    with torch.device("meta"):
        ours = config.build().state_dict()
    names = {original_name(name): name for name in ours}
    assert len(names) == len(ours), "two of our entries have one original name"
    shapes = {theirs: original_shape(theirs, ours[name].shape) for theirs, name in names.items()}
    _check(state, shapes)
    return {name: state[theirs].detach().reshape(ours[name].shape) for theirs, name in names.items()}


def _check(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    complaints = [f"missing {name} {tuple(shapes[name])}" for name in shapes if name not in state]
    complaints += [f"unexpected {name} {tuple(state[name].shape)}" for name in state if name not in shapes]
    complaints += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(shape)}"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    if complaints:
        listed = "\n  ".join(complaints)
        raise WeightsError(
            f"the weights do not fit this network; choose the preset they were trained with:\n  {listed}"
        )
