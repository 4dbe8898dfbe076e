"""Solids as signed distances: negative inside, lengths in voxels, arrays in float32.

Primitives, rigid motions, unions and sheets are exact outside and everywhere near a surface of their own; inside a
union, where solids overlap, the value is a lower bound of the depth; carved and smoothly joined solids are exact on
the surface and to first order around it. Formulas of the primitives: Hart 1996, "Sphere tracing", appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

GRADIENT_STEP = 0.02  # voxels


class Solid(Protocol):
    """Anything with a signed distance."""

    def distance(self, points: Floats) -> Floats:
        """Signed distances (N,) of points (N, 3)."""
        ...


def length(vectors: Floats) -> Floats:
    """Lengths (N,) of vectors (N, 3)."""
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def gradient(solid: Solid, points: Floats) -> Floats:
    """Central differences of the distance: (N, 3), the outward normals on the surface."""
    steps = GRADIENT_STEP * np.eye(3, dtype=np.float32)
    moved = np.concatenate([points + step for step in steps] + [points - step for step in steps])
    values = solid.distance(moved).reshape(2, 3, -1)
    slope: Floats = ((values[0] - values[1]) / (2 * GRADIENT_STEP)).T
    return slope


@dataclass(frozen=True)
class Box(Solid):
    """A box about the origin: half sides, and the radius of its rounded edges (inside the half sides)."""

    half: Sequence[float] | NDArray[np.float64]
    rounding: float = 0.0

    def distance(self, points: Floats) -> Floats:
        # Column by column: numpy reduces over an axis of 3 many times slower than it adds columns.
        x, y, z = (np.abs(points[:, axis]) - np.float32(self.half[axis] - self.rounding) for axis in range(3))
        inside = np.minimum(np.maximum(np.maximum(x, y), z), 0)
        for column in (x, y, z):
            np.maximum(column, 0, out=column)
        return np.asarray(np.sqrt(x * x + y * y + z * z) + inside - np.float32(self.rounding))


@dataclass(frozen=True)
class Sphere(Solid):
    """A ball about the origin."""

    radius: float

    def distance(self, points: Floats) -> Floats:
        return np.asarray(length(points) - np.float32(self.radius))


@dataclass(frozen=True)
class Cylinder(Solid):
    """A cylinder about the z axis, of height 2 `half_height`; `top` is the radius at its upper end, if it differs.

    With two radii the distance is measured to the slanted side in the half plane of the axis (exact).
    """

    radius: float
    half_height: float
    top: float | None = None

    def distance(self, points: Floats) -> Floats:
        r, z = np.hypot(points[:, 0], points[:, 1]), points[:, 2]
        h, low = np.float32(self.half_height), np.float32(self.radius)
        high = low if self.top is None else np.float32(self.top)
        cap_r = r - np.minimum(r, np.where(z < 0, low, high))
        cap_z = np.abs(z) - h
        dr, dz = high - low, 2 * h
        t = np.clip(((r - low) * dr + (z + h) * dz) / (dr * dr + dz * dz), 0, 1)
        side_r, side_z = r - (low + t * dr), z - (-h + t * dz)
        is_inside = (side_r < 0) & (cap_z < 0)
        squared = np.minimum(cap_r**2 + cap_z**2, side_r**2 + side_z**2)
        return np.asarray(np.where(is_inside, -1, 1) * np.sqrt(squared), np.float32)


@dataclass(frozen=True)
class Capsule(Solid):
    """All points within a radius of the segment from -half to half along z: cables, rails, poles."""

    radius: float
    half: float

    def distance(self, points: Floats) -> Floats:
        along = points[:, 2] - np.clip(points[:, 2], -self.half, self.half)
        return np.asarray(np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2 + along**2) - np.float32(self.radius))


@dataclass(frozen=True)
class Torus(Solid):
    """A torus around the z axis."""

    radius: float
    tube: float

    def distance(self, points: Floats) -> Floats:
        ring = np.hypot(points[:, 0], points[:, 1]) - np.float32(self.radius)
        return np.asarray(np.hypot(ring, points[:, 2]) - np.float32(self.tube))


@dataclass(frozen=True)
class HalfSpace(Solid):
    """Everything below the plane through the origin with this upward unit normal."""

    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def distance(self, points: Floats) -> Floats:
        return np.asarray(points @ np.asarray(self.normal, np.float32))


@dataclass(frozen=True)
class Hull(Solid):
    """A convex polyhedron: the intersection of half spaces `normals @ p <= offsets`.

    Exact inside and beyond the faces; beyond edges and corners it is a lower bound, by at most the bevel.
    """

    normals: Floats
    offsets: Floats

    def distance(self, points: Floats) -> Floats:
        farthest = points @ self.normals[0] - self.offsets[0]
        for normal, offset in zip(self.normals[1:], self.offsets[1:], strict=True):
            np.maximum(farthest, points @ normal - offset, out=farthest)
        return np.asarray(farthest, np.float32)


@dataclass(frozen=True)
class Terrain(Solid):
    """Everything below a smooth height field, a sum of plane waves; first order distance.

    Attributes:
        waves: (W, 4) wave number along x, along y, phase, amplitude.
    """

    waves: Floats

    def distance(self, points: Floats) -> Floats:
        phase = points[:, :2] @ self.waves[:, :2].T + self.waves[:, 2]
        height = np.sin(phase) @ self.waves[:, 3]
        slope = (np.cos(phase) * self.waves[:, 3]) @ self.waves[:, :2]
        return np.asarray((points[:, 2] - height) / np.sqrt(1 + (slope**2).sum(axis=1)), np.float32)


@dataclass(frozen=True)
class Blob(Solid):
    """An organic shape: spheres joined smoothly (soft minimum of width `softness`); first order distance."""

    centers: Floats
    radii: Floats
    softness: float

    def distance(self, points: Floats) -> Floats:
        softness = np.float32(self.softness)
        ways = [points - center for center in self.centers]
        ranges = [np.maximum(length(way), 1e-6) for way in ways]
        nearest = np.min([far - radius for far, radius in zip(ranges, self.radii, strict=True)], axis=0)
        total, slope = np.zeros(len(points), np.float32), np.zeros_like(points)
        for way, far, radius in zip(ways, ranges, self.radii, strict=True):
            weight = np.exp((nearest - (far - radius)) / softness)
            total += weight
            slope += (weight / far)[:, None] * way
        value = nearest - softness * np.log(total)
        return np.asarray(value / np.maximum(length(slope) / total, 0.3), np.float32)


@dataclass(frozen=True)
class Placed(Solid):
    """A solid turned by a rotation matrix, then moved."""

    solid: Solid
    rotation: Floats
    translation: Floats

    def distance(self, points: Floats) -> Floats:
        # By columns, each contiguous: a matrix product of three columns costs several times as much.
        x, y, z = (points[:, axis] - self.translation[axis] for axis in range(3))
        local = np.empty((3, len(points)), np.float32)
        for axis in range(3):
            column = self.rotation[:, axis]
            local[axis] = x * column[0] + y * column[1] + z * column[2]
        return self.solid.distance(local.T)


@dataclass(frozen=True)
class Union(Solid):
    """The union of some solids."""

    solids: Sequence[Solid]

    def distance(self, points: Floats) -> Floats:
        nearest = self.solids[0].distance(points)
        for solid in self.solids[1:]:
            np.minimum(nearest, solid.distance(points), out=nearest)
        return nearest


@dataclass(frozen=True)
class Carved(Solid):
    """A solid without what another takes away; a lower bound of the distance beyond the edges of the cut."""

    solid: Solid
    cut: Solid

    def distance(self, points: Floats) -> Floats:
        return np.maximum(self.solid.distance(points), -self.cut.distance(points))


@dataclass(frozen=True)
class Sheet(Solid):
    """What a surface seen from outside only is known to be: the solid's outermost layer of some thickness."""

    solid: Solid
    thickness: float

    def distance(self, points: Floats) -> Floats:
        outer = self.solid.distance(points)
        return np.asarray(np.maximum(outer, -np.float32(self.thickness) - outer), np.float32)


@dataclass(frozen=True)
class Shell(Solid):
    """All points within half a thickness of a solid's surface: domes, pipes, bowls, thin sheets."""

    solid: Solid
    thickness: float

    def distance(self, points: Floats) -> Floats:
        return np.abs(self.solid.distance(points)) - np.float32(self.thickness / 2)
