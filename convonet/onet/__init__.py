"""Occupancy Networks: one shape in the unit cube as the level set of a network (Mescheder et al. 2019)."""

from convonet.onet.network import Elbo, OccupancyNetwork, OccupancyNetworkConfig
from convonet.onet.originals import from_original
from convonet.onet.presets import PRESETS

__all__ = ["PRESETS", "Elbo", "OccupancyNetwork", "OccupancyNetworkConfig", "from_original"]
