"""Feature planes, alone or beside a volume: scans of any size, crop by crop (after Peng et al. 2020)."""

from convonet.planes.network import PlaneNetwork, PlaneNetworkConfig

__all__ = ["PlaneNetwork", "PlaneNetworkConfig"]
