"""What a user asks of `tessera generate`; light to import, as the command line shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundation.settings import check_at_least, check_choices

Up = Literal["y", "z"]


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate, beside the input.

    Attributes:
        points: number of points given to the network; by default as in its paper.
        noise: standard deviation of the noise added to the points, in sides of the unit cube; by default the paper's
            for meshes, none for measured points.
        seed: random seed of sampled points and of drawn shapes.
        samples: number of shapes to draw from a generative network; number i has the seed SEED + i.
        interpolate: two seeds of a generative network, two sequences, or two meshes, instead of INPUT.
        motion: sequence, or seed of a generative network, whose motion is applied to the shapes.
        frames: number of times in a sequence (by default as in training), or of steps in an interpolation (10).
        threshold: occupancy probability at the surface, between 0 and 1; the paper's by default.
        resolution: cells of the coarsest lattice along each side.
        steps: number of times that cells at the surface are halved; 2 refines 32 to 128.
        refine: number of steps that move vertices onto the surface; 30 in the paper.
        faces: number of faces to simplify each shape to.
        unit_cube: mesh in the network's unit cube instead of the input's coordinates.
        cube: unit cube of a sequence, that of its first frame (auto for imported weights) or of the whole sequence
            (auto for others, as `tessera preprocess` makes it).
        up: axis that points up in images; y for networks of ShapeNet.
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

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(1, points=self.points, samples=self.samples)
        check_at_least(2, frames=self.frames)
        check_at_least(4, faces=self.faces)
        check_at_least(0, seed=self.seed, noise=self.noise)
