"""Slabs, hollow balls and pipes as points, and the places of their exact surface where a field is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rng = np.random.Generator

FEET_RADIUS = 12.0  # voxels around the middle within which a surface is asked for


@dataclass(frozen=True)
class Probe:
    """A surface around a middle; all lengths in voxels, the middle at the origin.

    Attributes:
        points: (N, 3) noise-free points spread evenly over the surface.
        point_normals: (N, 3) unit normals there, out of the solid.
        feet: (K, 3) places on the exact surface, within `FEET_RADIUS` of the middle.
        normals: (K, 3) unit normals there, out of the solid.
    """

    points: Floats
    point_normals: Floats
    feet: Floats
    normals: Floats


@dataclass(frozen=True)
class ProbeSurface:
    """A kind of surface.

    Attributes:
        name: of the row it belongs to.
        sample: (points a voxel face, reach, rng) to points (N, 3) and normals (N, 3) that cover at least
            what lies within `reach` of the middle.
    """

    name: str
    sample: Callable[[float, float, Rng], tuple[Floats, Floats]]

    def probe(self, density: float, reach: float, feet: int, rng: Rng) -> Probe:
        """Points at a density, and at most `feet` places to ask at.

        Args:
            density: points a voxel face.
            reach: voxels from the middle within which points are wanted, at least.
            feet: upper bound of their number.
            rng: of all samples.
        """
        points, point_normals = self.sample(density, reach, rng)
        places, normals = self.sample(8.0, FEET_RADIUS, rng)
        near = rng.permutation(np.flatnonzero(np.linalg.norm(places, axis=1) < FEET_RADIUS))[:feet]
        return Probe(points, point_normals, places[near], normals[near])


def slab(name: str, normal: Floats, thickness: float = 5.0) -> ProbeSurface:
    """Two parallel faces, the middle halfway between them."""
    across, along = _tangents(normal)

    def sample(density: float, reach: float, rng: Rng) -> tuple[Floats, Floats]:
        count = rng.poisson(density * 2 * (2 * reach) ** 2)
        side = np.where(rng.random(count) < 0.5, 1.0, -1.0)[:, None]
        a, b = rng.uniform(-reach, reach, (2, count, 1))
        return a * across + b * along + 0.5 * thickness * side * normal, side * normal

    return ProbeSurface(name, sample)


def sphere_shell(name: str, radius: float, wall: float, normal: Floats) -> ProbeSurface:
    """A hollow ball; the middle is the point of its outside in direction `normal`."""

    def sample(density: float, reach: float, rng: Rng) -> tuple[Floats, Floats]:
        return _layers(radius, wall, normal, density, rng, lambda r: 4 * np.pi * r**2, _directions)

    return ProbeSurface(name, sample)


def pipe(name: str, radius: float, wall: float, normal: Floats) -> ProbeSurface:
    """A pipe without ends; the middle is on its outside, `normal` there."""
    across, axis = _tangents(normal)

    def sample(density: float, reach: float, rng: Rng) -> tuple[Floats, Floats]:
        def directions(count: int, rng: Rng) -> Floats:
            angle = rng.uniform(0, 2 * np.pi, (count, 1))
            outward: Floats = np.cos(angle) * normal + np.sin(angle) * across
            return outward

        points, normals = _layers(
            radius, wall, normal, density, rng, lambda r: 2 * np.pi * r * 2 * reach, directions
        )
        return points + rng.uniform(-reach, reach, (len(points), 1)) * axis, normals

    return ProbeSurface(name, sample)


def random_direction(rng: Rng) -> Floats:
    """(3,) unit vector, uniform on the sphere."""
    direction: Floats = _directions(1, rng)[0]
    return direction


def _layers(
    radius: float,
    wall: float,
    normal: Floats,
    density: float,
    rng: Rng,
    area: Callable[[float], float],
    directions: Callable[[int, Rng], Floats],
) -> tuple[Floats, Floats]:
    """Outside and inside of a shell; the normals inside point to the center."""
    points, normals = [], []
    for r, sign in ((radius, 1.0), (radius - wall, -1.0)):
        outward = directions(rng.poisson(density * area(r)), rng)
        points.append(r * outward - radius * normal)
        normals.append(sign * outward)
    return np.concatenate(points), np.concatenate(normals)


def _directions(count: int, rng: Rng) -> Floats:
    vectors = rng.standard_normal((count, 3))
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _tangents(normal: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors across a unit normal and each other."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    return first, np.cross(normal, first)
