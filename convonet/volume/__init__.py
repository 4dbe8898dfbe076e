"""The volume network: scans of any size, crop by crop, in voxel units (after Peng et al. 2020)."""

from convonet.volume.network import VolumeNetwork, VolumeNetworkConfig

__all__ = ["VolumeNetwork", "VolumeNetworkConfig"]
