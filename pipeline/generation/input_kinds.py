"""What networks are conditioned on, in words."""

from __future__ import annotations

from pathlib import Path

from convonet.family import InputKind
from pipeline.errors import PipelineError

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


def refuse(path: Path, wanted: InputKind) -> PipelineError:
    """The error of an input of another kind than the network takes."""
    return PipelineError(f"{path}: is not what this network takes, which is {WANTED[wanted]}")
