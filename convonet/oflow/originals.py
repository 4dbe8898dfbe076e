"""Weights of the original repository (autonomousvision/occupancy_flow) in our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from convonet.oflow.network import OccupancyFlowConfig
from convonet.oflow.onet4d import OccupancyNetwork4DConfig
from convonet.original_states import Shape, map_original

_RENAMES = (
    (r"^(spatial_encoder|temporal_encoder)\.blocks\.", r"\1.block_"),
    (r"^temporal_encoder\.pointnet\.blocks\.", r"temporal_encoder.resnet_pointnet.block_"),
    (r"^temporal_encoder\.pointnet\.", r"temporal_encoder.resnet_pointnet."),
    (r"^temporal_encoder\.convs\.", r"temporal_encoder.conv"),
    (r"^decoder\.blocks\.", r"decoder.block"),
    (r"^spatial_encoder\.", "encoder."),
    (r"^temporal_encoder\.", "encoder_temporal."),
    (r"^shape_posterior\.", "encoder_latent."),
    (r"^motion_posterior\.", "encoder_latent_temporal."),
    (r"^velocity_field\.", "vector_field."),
)
"""Our names to the original's, applied in this order."""

_CONDITIONAL_NORM = re.compile(r"\.(gamma|beta)\.(weight|bias)$")


def original_entry(
    name: str, shape: Shape, config: OccupancyFlowConfig | OccupancyNetwork4DConfig
) -> tuple[str, Shape]:
    """Name and shape in the original's state dict of the tensor that we call `name`.

    The scale and shift of a conditional batch norm are convolutions of one tap there, or, in its legacy
    form, linear layers as here.
    """
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    conditional = _CONDITIONAL_NORM.search(name)
    if conditional is None:
        return name, shape
    kind = "fc" if config.legacy_normalization else "conv"
    name = _CONDITIONAL_NORM.sub(rf".{kind}_\1.\2", name)
    is_convolution = conditional[2] == "weight" and not config.legacy_normalization
    return name, (*shape, 1) if is_convolution else shape


def from_original(
    state: Mapping[str, Tensor], config: OccupancyFlowConfig | OccupancyNetwork4DConfig
) -> dict[str, Tensor]:
    """Map a state dict of the original onto ours.

    Args:
        state: the entry "model" of an original checkpoint.
        config: of the network to fill, as the preset of the original's configuration.

    Returns:
        A state dict for `config.build().load_state_dict`. Absent step counters are 0.

    Raises:
        WeightsError: listing every missing, unexpected and wrongly shaped entry.
    """
    return map_original(state, config.build, lambda name, shape: original_entry(name, shape, config))
