"""Weights of the original implementation (autonomousvision/occupancy_networks) for our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from convonet.onet.network import OccupancyNetworkConfig
from convonet.original_states import Shape, map_original

RENAMED = (  # pattern of our names, the original's
    (r"^latent_encoder\.fc_occupancy\.", "encoder_latent.fc_0."),
    (r"^latent_encoder\.layers\.0\.", "encoder_latent.fc_1."),
    (r"^latent_encoder\.layers\.1\.", "encoder_latent.fc_2."),
    (r"^latent_encoder\.layers\.2\.", "encoder_latent.fc_3."),
    (r"^latent_encoder\.", "encoder_latent."),
    (r"^encoder\.blocks\.(\d+)\.", r"encoder.block_\1."),
    (r"^encoder\.layers\.(\d+)\.", r"encoder.fc_\1."),
    (r"^encoder\.convs\.(\d+)\.", r"encoder.conv_\1."),
    (r"^decoder\.layers\.(\d+)\.", r"decoder.fc_\1."),
    (r"^decoder\.norms\.(\d+)\.", r"decoder.bn_\1."),
    (r"^decoder\.(blocks\.\d+\.)?norm", r"decoder.\1bn"),
    (r"\.batch_norm\.", ".bn."),
)


def from_original(state: Mapping[str, Tensor], config: OccupancyNetworkConfig) -> dict[str, Tensor]:
    """Map a state dict of the original onto ours: same tensors, our names and shapes.

    Both generations of the original's conditional batch norm are understood: convolutions of width 1
    (`conv_gamma`, `conv_beta`) and, in its legacy decoders, linear maps (`fc_gamma`, `fc_beta`).

    Args:
        state: entry `model` of one of the original's checkpoints.
        config: of the network that the weights are for.

    Returns:
        a complete state dict for `config.build()`, which then computes what the original computed.

    Raises:
        WeightsError: listing missing, unexpected and wrongly shaped entries by the original's names.
    """
    is_legacy = any(".fc_gamma." in name for name in state)

    def entry(name: str, shape: Shape) -> tuple[str, Shape]:
        theirs = _original_name(name, config, is_legacy)
        return theirs, _original_shape(theirs, shape, config)

    return map_original(state, config.build, entry)


def _original_name(name: str, config: OccupancyNetworkConfig, is_legacy: bool) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    if name.startswith("decoder."):
        affine = "fc" if is_legacy else "conv"
        name = name.replace(".scale.", f".{affine}_gamma.").replace(".shift.", f".{affine}_beta.")
        if config.decoder == "cbatchnorm2":
            return name.replace(".fc_p.", ".conv_p.").replace(".fc_out.", ".conv_out.")
        return re.sub(r"\.blocks\.(\d+)\.", r".block\1.", name)
    return name


def _original_shape(name: str, shape: Shape, config: OccupancyNetworkConfig) -> Shape:
    """Layers over query points are convolutions of width 1 there, except in the `simple` decoder."""
    is_layer = name.startswith("decoder.") and len(shape) == 2 and config.decoder != "simple"
    is_linear = re.search(r"\.(fc_z|fc_c|fc_gamma|fc_beta)\.", name)
    return (*shape, 1) if is_layer and not is_linear else shape
