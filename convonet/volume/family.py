"""The record of the volume network's family."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from convonet.family import Family
from convonet.training import LOGITS_PER_VOXEL
from convonet.volume.network import VolumeNetwork, VolumeNetworkConfig


def _trainable(network: nn.Module) -> VolumeNetwork:
    """With hints and distances, which older weights know nothing of; new layers start at 0."""
    assert isinstance(network, VolumeNetwork)
    config = replace(network.config, has_hints=True, logits_per_voxel=LOGITS_PER_VOXEL)
    taught = VolumeNetwork(config)
    taught.load_state_dict(taught.state_dict() | network.state_dict())
    return taught


FAMILY = Family(
    VolumeNetworkConfig,
    {"volume": VolumeNetworkConfig(has_hints=True, logits_per_voxel=LOGITS_PER_VOXEL)},
    trainable=_trainable,
)
