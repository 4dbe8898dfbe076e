"""What a network is conditioned on, and how its paper showed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convonet.conv_onet import ConvOnetConfig
from convonet.oflow import OccupancyFlowConfig, OccupancyNetwork4DConfig
from convonet.onet import OccupancyNetworkConfig
from convonet.registry import NetworkConfig
from pipeline.errors import PipelineError

InputKind = Literal[
    "image", "points", "voxels", "shape", "tracks", "images", "pair", "crops", "scan", "nothing"
]

WANTED: dict[InputKind, str] = {
    "image": "an image (PNG, JPG)",
    "points": "a point cloud or a mesh",
    "voxels": "a voxel grid (binvox, NPY) or a mesh",
    "shape": "the number of a training shape",
    "tracks": "a sequence: a folder of meshes or point clouds in correspondence, or NPZ with vertices (T, V, 3)",
    "images": "a folder of images",
    "pair": "two meshes (--interpolate A B), or a folder of meshes to pass through",
    "crops": "a point cloud or a mesh of a room",
    "scan": "a scan",
    "nothing": "nothing",
}

BRIEF: dict[InputKind, str] = {
    "image": "image",
    "points": "points",
    "voxels": "voxels",
    "shape": "number of a training shape",
    "tracks": "moving points",
    "images": "moving pictures",
    "pair": "two meshes",
    "crops": "points of a room",
    "scan": "scan",
    "nothing": "nothing",
}


def input_kind(config: NetworkConfig) -> InputKind:
    """What a network of a configuration is conditioned on."""
    match config:
        case ConvOnetConfig():
            kinds: dict[str, InputKind] = {"voxels": "voxels", "crops": "crops"}
            return kinds.get(config.family, "points")
        case OccupancyNetworkConfig():
            if config.encoder.startswith("pointnet"):
                return "points"
            others: dict[str, InputKind] = {"voxel_simple": "voxels", "resnet18": "image", "index": "shape"}
            return others.get(config.encoder, "nothing")
        case OccupancyFlowConfig():
            if config.temporal_encoder == "pointnet_pair":
                return "pair"
            if config.spatial_encoder == "resnet18" or config.temporal_encoder == "conv3d":
                return "images"
            return "tracks" if config.spatial_encoder or config.temporal_encoder else "nothing"
        case OccupancyNetwork4DConfig():
            return "images" if config.temporal_encoder == "conv3d" else "tracks"
    return "scan"


@dataclass(frozen=True)
class Sampling:
    """How many points a network is shown, and with what noise: the test protocol of its paper.

    Attributes:
        points: how many.
        noise: standard deviation in unit cubes; added to points sampled on meshes, not to measured ones.
    """

    points: int
    noise: float


def paper_sampling(config: NetworkConfig, preset: str = "") -> Sampling:
    """The points that a network was tested with; `preset` tells rooms from objects where the sizes do not."""
    match config:
        case ConvOnetConfig():
            is_room = preset.startswith(("room", "crop")) if preset else config.plane_resolution > 64
            return Sampling(10_000 if is_room else 3_000, 0.005)
        case OccupancyFlowConfig() if config.temporal_encoder == "pointnet_pair":
            return Sampling(10_000, 0.0)
        case OccupancyFlowConfig() if config.latent_size:
            return Sampling(4_000, 0.0)
        case OccupancyFlowConfig() | OccupancyNetwork4DConfig():
            return Sampling(300, 0.001)
    return Sampling(300, 0.005)


def refuse(path: Path, wanted: InputKind) -> PipelineError:
    """The error of an input of another kind than the network takes."""
    return PipelineError(f"{path}: is not what this network takes, which is {WANTED[wanted]}")
