"""Every family of networks by name, and their presets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from convonet.family import Family, NetworkConfig
from foundation.errors import SettingError

FAMILIES: dict[str, str] = {
    "volume": "convonet.volume.family",
    "planes": "convonet.planes.family",
    "conv_onet": "convonet.conv_onet.family",
    "onet": "convonet.onet.family",
    "oflow": "convonet.oflow.family",
    "onet4d": "convonet.oflow.onet4d_family",
}
"""Module of each family's record, `FAMILY`; it is imported when the family is first asked for."""


def family(kind: str) -> Family[Any]:
    """The record of a family.

    Raises:
        SettingError: if there is none of this name.
    """
    if kind not in FAMILIES:
        raise SettingError(f"no kind of network is called {kind!r}; there are {', '.join(FAMILIES)}")
    record: Family[Any] = import_module(FAMILIES[kind]).FAMILY
    return record


def family_of(config: NetworkConfig) -> Family[Any]:
    """The record of a configuration's family."""
    return family(config.kind)


def presets() -> dict[str, NetworkConfig]:
    """The named configurations of all families."""
    return {name: config for kind in FAMILIES for name, config in family(kind).presets.items()}


def preset(name: str) -> NetworkConfig:
    """A named configuration.

    Raises:
        SettingError: if there is none of this name.
    """
    known = presets()
    if name not in known:
        raise SettingError(f"no preset is called {name!r}; there are {', '.join(known)}")
    return known[name]


def config_from_json(kind: str, values: Mapping[str, Any]) -> NetworkConfig:
    """A configuration as it was before it became JSON.

    Raises:
        SettingError: if the kind is unknown or the values do not make a configuration.
    """
    known = family(kind).config
    try:
        config: NetworkConfig = known.from_dict(values) if hasattr(known, "from_dict") else known(**values)
    except TypeError as error:
        raise SettingError(f"not a configuration of a {kind} network: {error}") from error
    return config


def parameter_count(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(value.numel() for value in network.parameters())
