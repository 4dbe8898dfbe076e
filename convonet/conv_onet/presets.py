"""The networks of Peng et al. 2020, with the sizes of the published configurations.

ShapeNet presets take 3,000 points with noise of 0.005, room presets 10,000; voxel presets take 32^3 grids. All
reconstruct at the occupancy threshold 0.2. `crop_room_grid64` was trained with voxels of 0.005 in normalized
rooms; for scans in meters, use the same weights with the unit size and query box of the scene
(`dataclasses.replace(config, unit_size=0.02, query_voxels=90)` for Matterport3D).
"""

from __future__ import annotations

from convonet.conv_onet.coordinates import Projection
from convonet.conv_onet.network import ConvOnetConfig

THREE_PLANES: tuple[Projection, ...] = ("xz", "xy", "yz")
OCCUPANCY_THRESHOLD = 0.2

_SHAPENET_3PLANE = ConvOnetConfig("points", THREE_PLANES, plane_resolution=64, unet2d_levels=4)

PRESETS: dict[str, ConvOnetConfig] = {
    "shapenet_1plane": ConvOnetConfig("points", ("xz",), plane_resolution=64, unet2d_levels=4),
    "shapenet_3plane": _SHAPENET_3PLANE,
    "shapenet_3plane_partial": _SHAPENET_3PLANE,
    "shapenet_grid32": ConvOnetConfig("points", ("grid",), volume_resolution=32, unet3d_levels=3),
    "shapenet_pointconv": ConvOnetConfig("pointconv"),
    "room_1plane": ConvOnetConfig("points", ("xz",), plane_resolution=128, unet2d_levels=5),
    "room_3plane": ConvOnetConfig("points", THREE_PLANES, plane_resolution=128, unet2d_levels=5),
    "room_grid32": ConvOnetConfig("points", ("grid",), volume_resolution=32, unet3d_levels=3),
    "room_grid64": ConvOnetConfig("points", ("grid",), volume_resolution=64, unet3d_levels=4),
    "room_combine": ConvOnetConfig(
        "points",
        (*THREE_PLANES, "grid"),
        plane_resolution=128,
        volume_resolution=32,
        unet2d_levels=5,
        unet3d_levels=3,
    ),
    "room_pointconv": ConvOnetConfig("pointconv", decoder_hidden=256),
    "voxel_shapenet_1plane": ConvOnetConfig("voxels", ("xz",), plane_resolution=64, unet2d_levels=4),
    "voxel_shapenet_3plane": ConvOnetConfig("voxels", THREE_PLANES, plane_resolution=64, unet2d_levels=4),
    "voxel_shapenet_grid32": ConvOnetConfig("voxels", ("grid",), volume_resolution=32, unet3d_levels=3),
    "crop_room_grid64": ConvOnetConfig(
        "crops",
        ("grid",),
        query_voxels=25,
        unit_size=0.005,
        unet3d_levels=4,
    ),
}
