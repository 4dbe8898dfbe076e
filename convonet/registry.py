"""Every kind of network by name: its configuration, its presets, and how it comes back from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from convonet import conv_onet, oflow, onet
from convonet.planes import PlaneNetworkConfig
from convonet.planes import network as planes
from convonet.training import LOGITS_PER_VOXEL
from convonet.volume import VolumeNetworkConfig

NetworkConfig = (
    VolumeNetworkConfig
    | PlaneNetworkConfig
    | conv_onet.ConvOnetConfig
    | onet.OccupancyNetworkConfig
    | oflow.OccupancyFlowConfig
    | oflow.OccupancyNetwork4DConfig
)

SCAN_KINDS = ("volume", "planes")
"""Kinds that are trained on crops of scenes, in voxel units, and make nothing but scenes."""
KINDS: dict[str, type[Any]] = {
    "volume": VolumeNetworkConfig,
    "planes": PlaneNetworkConfig,
    "conv_onet": conv_onet.ConvOnetConfig,
    "onet": onet.OccupancyNetworkConfig,
    "oflow": oflow.OccupancyFlowConfig,
    "onet4d": oflow.OccupancyNetwork4DConfig,
}
PRESETS: dict[str, NetworkConfig] = {
    "volume": VolumeNetworkConfig(has_hints=True, logits_per_voxel=LOGITS_PER_VOXEL),
    **planes.PRESETS,
    **conv_onet.PRESETS,
    **onet.PRESETS,
    **oflow.PRESETS,
}


def kind_of(config: NetworkConfig) -> str:
    """The name of a configuration's kind of network."""
    return next(kind for kind, known in KINDS.items() if type(config) is known)


def occupancy_threshold(config: NetworkConfig) -> float:
    """The occupancy at the surface of the published meshes of a paper's network."""
    match config:
        case onet.OccupancyNetworkConfig():
            return config.threshold
        case conv_onet.ConvOnetConfig():
            return conv_onet.presets.OCCUPANCY_THRESHOLD
        case _:
            return oflow.presets.OCCUPANCY_THRESHOLD


def config_from_json(kind: str, values: Mapping[str, Any]) -> NetworkConfig:
    """A configuration as it was before it became JSON.

    Raises:
        ValueError: if the kind is unknown or the values do not make a configuration.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of network is called {kind!r}; there are {', '.join(KINDS)}")
    known = KINDS[kind]
    try:
        config: NetworkConfig = known.from_dict(values) if hasattr(known, "from_dict") else known(**values)
    except TypeError as error:
        raise ValueError(f"not a configuration of a {kind} network: {error}") from error
    return config


def parameter_count(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(value.numel() for value in network.parameters())
