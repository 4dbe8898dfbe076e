"""State dicts of the original repository (autonomousvision/convolutional_occupancy_networks) onto ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from convonet.conv_onet.network import ConvOnetConfig
from convonet.original_states import Shape, map_original, renamed

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


def original_entry(name: str, shape: Shape) -> tuple[str, Shape]:
    """The original's name and shape of one of our entries.

    Its layers shared by points are convolutions of width 1 where ours are linear.
    """
    name = renamed(name, _RENAMES)
    if name.endswith(".weight") and ".mlp_convs." in name:
        return name, (*shape, 1, 1) if ".sa" in name else (*shape, 1)
    return name, shape


def from_original(state: Mapping[str, Tensor], config: ConvOnetConfig) -> dict[str, Tensor]:
    """Map a network of the original repository onto ours; see `map_original`."""
    return map_original(state, config.build, original_entry)
