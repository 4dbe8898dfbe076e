"""Weights of the original repository (autonomousvision/occupancy_flow) in our networks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from convonet.oflow.network import OccupancyFlowConfig
from convonet.oflow.onet4d import OccupancyNetwork4DConfig
from convonet.original_states import Shape, decoder_name, decoder_shape, is_legacy, map_original, renamed

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


def from_original(
    state: Mapping[str, Tensor], config: OccupancyFlowConfig | OccupancyNetwork4DConfig
) -> dict[str, Tensor]:
    """Map a state dict of the original onto ours; see `map_original`.

    Both generations of its conditional batch norm are understood, as in `convonet.onet.originals`.
    """
    legacy = is_legacy(state)

    def entry(name: str, shape: Shape) -> tuple[str, Shape]:
        if name.startswith("decoder."):
            name = decoder_name(name, legacy)
            shape = decoder_shape(name, shape) if config.decoder == "conditional" else shape
        return renamed(name, _RENAMES), shape

    return map_original(state, config.build, entry)
