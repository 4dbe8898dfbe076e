"""The commands of `tessera`: each is a dataclass of its arguments, which are its options, with a method `run`.

They are light to import: whatever takes its time is imported where a command runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.commands.clean import Clean
from pipeline.commands.demo import Demo
from pipeline.commands.evaluate import Evaluate
from pipeline.commands.generate import Generate
from pipeline.commands.info import Info
from pipeline.commands.models import ImportModel, ListModels
from pipeline.commands.preprocess import Bodies, Humans, Matterport, Meshes, Rooms, ScanNet, ShapeNet
from pipeline.commands.reconstruct import Reconstruct
from pipeline.commands.train import Train

__all__ = ["TESSERA", "Command", "Group"]


class Command(Protocol):
    """What a dataclass of arguments does."""

    def run(self) -> None:
        """Do it, and print a summary."""


@dataclass(frozen=True)
class Group:
    """Commands under one name.

    Attributes:
        about: help text.
        members: each by its name.
        usual: name of the command that runs where none is named; empty for none.
    """

    about: str
    members: dict[str, type[Command] | Group]
    usual: str = ""


PREPROCESS = Group(
    "Turn meshes or procedural scenes into training data.",
    {
        "rooms": Rooms,
        "bodies": Bodies,
        "meshes": Meshes,
        "shapenet": ShapeNet,
        "scannet": ScanNet,
        "matterport": Matterport,
        "humans": Humans,
    },
)
MODELS = Group(
    """List the packaged weights and the presets, or import a published checkpoint.

Example: tessera models

Example: tessera models import onet_img2mesh.pt --preset onet_img --out onet.safetensors""",
    {"list": ListModels, "import": ImportModel},
    usual="list",
)
TESSERA = Group(
    """Turn huge point-cloud scans into one watertight mesh; tessera --version prints the version.

Example: tessera reconstruct house.laz --out runs/house

Example: tessera reconstruct --help, for its options and more examples; so for every command""",
    {
        "demo": Demo,
        "reconstruct": Reconstruct,
        "generate": Generate,
        "evaluate": Evaluate,
        "preprocess": PREPROCESS,
        "train": Train,
        "models": MODELS,
        "info": Info,
        "clean": Clean,
    },
)
