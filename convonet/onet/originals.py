"""Weights of the original implementation (autonomousvision/occupancy_networks) for our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from convonet.onet.network import OccupancyNetworkConfig
from convonet.original_states import Shape, decoder_name, decoder_shape, is_legacy, map_original, renamed

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
)


def from_original(state: Mapping[str, Tensor], config: OccupancyNetworkConfig) -> dict[str, Tensor]:
    """Map a state dict of the original onto ours; see `map_original`.

    Both generations of the original's conditional batch norm are understood: convolutions of width 1
    (`conv_gamma`, `conv_beta`) and, in its legacy decoders, linear maps (`fc_gamma`, `fc_beta`).
    """
    legacy = is_legacy(state)

    def entry(name: str, shape: Shape) -> tuple[str, Shape]:
        theirs = _original_name(name, config, legacy)
        is_normalized = theirs.startswith("decoder.") and config.decoder != "simple"
        return theirs, decoder_shape(theirs, shape) if is_normalized else shape

    return map_original(state, config.build, entry)


def _original_name(name: str, config: OccupancyNetworkConfig, legacy: bool) -> str:
    name = renamed(name, RENAMED)
    if not name.startswith("decoder."):
        return name
    name = decoder_name(name, legacy)
    if config.decoder == "cbatchnorm2":
        return name.replace(".fc_p.", ".conv_p.").replace(".fc_out.", ".conv_out.")
    return re.sub(r"\.blocks\.(\d+)\.", r".block\1.", name)
