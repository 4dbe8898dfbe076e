"""Weights of the original repository (autonomousvision/occupancy_flow) in our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from convonet.errors import WeightsError
from convonet.oflow.network import OccupancyFlowConfig
from convonet.oflow.onet4d import OccupancyNetwork4DConfig

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
_COUNTER = "num_batches_tracked"


def original_entry(
    name: str, shape: torch.Size, config: OccupancyFlowConfig | OccupancyNetwork4DConfig
) -> tuple[str, tuple[int, ...]]:
    """Name and shape in the original's state dict of the tensor that we call `name`.

    The scale and shift of a conditional batch norm are convolutions of one tap there, or, in its legacy
    form, linear layers as here.
    """
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    conditional = _CONDITIONAL_NORM.search(name)
    if conditional is None:
        return name, tuple(shape)
    kind = "fc" if config.legacy_normalization else "conv"
    name = _CONDITIONAL_NORM.sub(rf".{kind}_\1.\2", name)
    is_convolution = conditional[2] == "weight" and not config.legacy_normalization
    return name, (*shape, 1) if is_convolution else tuple(shape)


def from_original(
    state: Mapping[str, Tensor], config: OccupancyFlowConfig | OccupancyNetwork4DConfig
) -> dict[str, Tensor]:
    """Map a state dict of the original onto ours.

    Args:
        state: the entry "model" of an original checkpoint.
        config: of the network to fill, as the preset of the original's configuration.

    Returns:
        A state dict for `config.build().load_state_dict`. Counters of batches, which inference does not use
        and which old versions of PyTorch did not store, are 0 where they are missing.

    Raises:
        WeightsError: listing every missing, unexpected and wrongly shaped entry.
    """
    with torch.device("meta"):
        ours = config.build().state_dict()
    filled: dict[str, Tensor] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    known: set[str] = set()
    for name, expected in ours.items():
        original, shape = original_entry(name, expected.shape, config)
        known.add(original)
        if original not in state:
            if original.endswith(_COUNTER):
                filled[name] = torch.zeros((), dtype=torch.int64)
            else:
                missing.append(f"{original} {shape}")
        elif tuple(state[original].shape) != shape:
            misshapen.append(f"{original} is {tuple(state[original].shape)}, not {shape}")
        else:
            filled[name] = state[original].detach().reshape(expected.shape).clone()
    unexpected = [f"{name} {tuple(value.shape)}" for name, value in state.items() if name not in known]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    listed = [f"{kind}: {', '.join(entries)}" for kind, entries in problems.items() if entries]
    if listed:
        raise WeightsError(
            "the state dict is not of this configuration; choose the preset that it was trained with. "
            + "; ".join(listed)
        )
    return filled
