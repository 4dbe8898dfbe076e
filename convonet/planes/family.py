"""The record of the family of feature planes for crops."""

from __future__ import annotations

from convonet.family import Family
from convonet.planes.network import PlaneNetworkConfig
from convonet.training import LOGITS_PER_VOXEL

FAMILY = Family(
    PlaneNetworkConfig,
    {
        "crop_1plane": PlaneNetworkConfig(("xz",), logits_per_voxel=LOGITS_PER_VOXEL),
        "crop_3plane": PlaneNetworkConfig(logits_per_voxel=LOGITS_PER_VOXEL),
        "crop_combine": PlaneNetworkConfig(has_volume=True, logits_per_voxel=LOGITS_PER_VOXEL),
    },
)
