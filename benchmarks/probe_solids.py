"""Closed balls and cylinders as points, and how far a mesh lies from their exact surface; lengths in voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rng = np.random.Generator

EDGE_VOXELS = 6.0  # from a cylinder's edges within which nothing is measured: edges are rounded


@dataclass(frozen=True)
class ProbeSolid:
    """A ball, or a cylinder about the z axis, both around the origin.

    Attributes:
        name: of the row it belongs to.
        radius: see above.
        half_height: of the cylinder; None for a ball.
    """

    name: str
    radius: float
    half_height: float | None = None

    def sample(self, density: float, rng: Rng) -> tuple[Floats, Floats]:
        """Points (N, 3) spread evenly over the whole surface, `density` for each unit of area, and unit normals."""
        if self.half_height is None:
            normals = rng.standard_normal((rng.poisson(density * 4 * np.pi * self.radius**2), 3))
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            return self.radius * normals, normals
        mantle = rng.poisson(density * 4 * np.pi * self.radius * self.half_height)
        caps = rng.poisson(density * 2 * np.pi * self.radius**2)
        angle = rng.uniform(0, 2 * np.pi, mantle + caps)
        around = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(angle))], axis=1)
        points, normals = self.radius * around, around.copy()
        points[:mantle, 2] = self.half_height * rng.uniform(-1, 1, mantle)
        side = rng.choice([-1.0, 1.0], caps)
        points[mantle:] *= np.sqrt(rng.random((caps, 1)))
        points[mantle:, 2], normals[mantle:] = self.half_height * side, side[:, None] * [0, 0, 1]
        return points, normals

    def is_measured(self, places: Floats) -> NDArray[np.bool_]:
        """Which places (N, 3) near the surface are far from edges; of a cylinder its mantle."""
        if self.half_height is None:
            return np.ones(len(places), np.bool_)
        return np.abs(places[:, 2]) < self.half_height - EDGE_VOXELS

    def distance(self, places: Floats) -> Floats:
        """Signed distances (N,) outwards of the places measured."""
        axes = 3 if self.half_height is None else 2
        found: Floats = np.linalg.norm(places[:, :axes], axis=1) - self.radius
        return found
