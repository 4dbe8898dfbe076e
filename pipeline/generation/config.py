"""What a user asks of `tessera generate`; light to import, as the command line shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Up = Literal["y", "z"]


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate, beside the input.

    Attributes:
        points: points that the network is shown; as many as in its paper by default.
        noise: deviation of noise added to them, in unit cubes; by default the paper's on meshes, none on measured
            points.
        seed: of sampled points and of drawn shapes.
        samples: shapes to draw from a generative network; number i has the seed SEED + i.
        interpolate: two seeds of a generative network, two sequences, or two meshes, instead of INPUT.
        motion: a sequence, or a seed of a generative network, whose motion the shapes take.
        frames: moments of a sequence (as in training by default), or steps of an interpolation (10).
        threshold: occupancy at the surface, between 0 and 1; the paper's by default.
        resolution: cells of the coarsest lattice along each side.
        steps: how often the cells at the surface are halved; 2 makes 32 to 128.
        refine: steps that move vertices onto the surface exactly; 30 in the paper.
        faces: simplify each shape to so many faces.
        unit_cube: leave the mesh in the network's unit cube instead of the input's coordinates.
        cube: unit cube of a sequence, that of its first frame (auto for imported weights) or of the whole sequence
            (auto for others, as `tessera preprocess` makes it).
        up: the axis that points up in pictures; y for networks of ShapeNet.
    """

    points: int | None = None
    noise: float | None = None
    seed: int = 0
    samples: int | None = None
    interpolate: tuple[str, str] | None = None
    motion: str | None = None
    frames: int | None = None
    threshold: float | None = None
    resolution: int = 32
    steps: int = 2
    refine: int = 0
    faces: int | None = None
    unit_cube: bool = False
    cube: Literal["auto", "first", "whole"] = "auto"
    up: Up = "z"
