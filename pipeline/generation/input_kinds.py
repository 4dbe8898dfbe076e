"""What networks are conditioned on, in words."""

from __future__ import annotations

from pathlib import Path

from convonet.family import InputKind
from pipeline.errors import PipelineError

INPUT_WORDS: dict[InputKind, tuple[str, str]] = {
    "image": ("image", "an image (PNG, JPG)"),
    "points": ("points", "a point cloud or a mesh"),
    "voxels": ("voxels", "a voxel grid (binvox, NPY) or a mesh"),
    "shape": ("number of a training shape", "the number of a training shape"),
    "tracks": (
        "moving points",
        "a sequence: a folder of meshes or point clouds in correspondence, or NPZ with vertices (T, V, 3)",
    ),
    "images": ("moving pictures", "a folder of images"),
    "pair": ("two meshes", "two meshes (--interpolate A B), or a folder of meshes to pass through"),
    "crops": ("points of a room", "a point cloud or a mesh of a room"),
    "scan": ("scan", "a scan"),
    "nothing": ("nothing", "nothing"),
}
"""What each kind is called in a table, and in a message that asks for it."""


def refuse(path: Path, wanted: InputKind) -> PipelineError:
    """The error of an input of another kind than the network takes."""
    return PipelineError(f"{path}: is not what this network takes, which is {INPUT_WORDS[wanted][1]}")
