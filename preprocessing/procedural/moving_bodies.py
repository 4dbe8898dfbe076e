"""Random bodies that move, with exact occupancy, normals and correspondences at every time from 0 to 1.

They stand in for captured humans when Occupancy Flow is trained (Niemeyer et al. 2019). A body is a union
of superellipsoids, each carried by motions with a closed-form inverse, so that only pictures need a mesh.
Meters, z up, 0.5 to 2 m large, near the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from foundation.errors import SettingError
from foundation.settings import check_at_least
from preprocessing.errors import GeometryError
from preprocessing.procedural.body_designs import DESIGNS
from preprocessing.procedural.body_motions import Floats, Motion, Superellipsoid

KINDS = ("articulated", "bending", "twisting", "deforming")

# What is nearer than this to another part's surface, relative to the part's size, counts as buried in it.
CREASE = 1e-9
# The most area an even spread of directions shows is below the true most by less than this factor.
AREA_MARGIN = 1.2
EVEN_DIRECTIONS = 4096
CHECKED_TIMES, CHECKED_DIRECTIONS = 33, 1024
# What the even directions miss of a body's extent is less than this part of its size.
SEEN_MARGIN = 0.003
MOST_ROUNDS = 1000
MESH_SUBDIVISIONS = 5  # of an icosahedron: 20,480 faces a part
NEXT, PREVIOUS = np.array([1, 2, 0]), np.array([2, 0, 1])


@dataclass(frozen=True)
class BodyPart:
    """A solid carried by a chain of motions, the first of them applied to its rest shape."""

    shape: Superellipsoid
    motions: tuple[Motion, ...]

    def forward(self, rest: Floats, time: float) -> Floats:
        """Where rest positions (N, 3) are at a time."""
        for motion in self.motions:
            rest = motion.forward(rest, time)
        return rest

    def inverse(self, points: Floats, time: float) -> Floats:
        """Rest positions (N, 3) of what is at points (N, 3) at a time."""
        for motion in reversed(self.motions):
            points = motion.inverse(points, time)
        return points

    def gauge(self, points: Floats, time: float) -> Floats:
        """(N,) 1 on the surface, less inside."""
        return self.shape.gauge(self.inverse(points, time))

    def oriented(self, rest: Floats, time: float) -> tuple[Floats, Floats]:
        """Surface points (N, 3), and outward normals as long as the area there is over that at rest.

        The lengths are relative to the gauge's gradient at `rest`.
        """
        points, areas = rest, self.shape.gradient(rest)
        for motion in self.motions:
            areas = np.einsum("nij,nj->ni", _cofactors(motion.jacobian(points, time)), areas)
            points = motion.forward(points, time)
        return points, areas

    def first_fold(self) -> tuple[Motion, float] | None:
        """The first motion that is not one to one, with the time."""
        rest, _ = self.shape.along(_even_directions(CHECKED_DIRECTIONS))
        for time in np.linspace(0, 1, CHECKED_TIMES):
            points = rest
            for motion in self.motions:
                if not motion.is_one_to_one(points, time):
                    return motion, float(time)
                points = motion.forward(points, time)
        return None


@dataclass(frozen=True)
class MovingBody:
    """A union of solids that moves from time 0 to time 1.

    Attributes:
        kind: one of KINDS.
        seed: of the body; with the kind it fixes everything.
        parts: the solids.

    Raises:
        ValueError: if a part folds or meets itself at some time.
    """

    kind: str
    seed: int
    parts: tuple[BodyPart, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            if fold := part.first_fold():
                raise ValueError(f"the body folds over itself at time {fold[1]:.3f}, by {fold[0]}")

    def surface(self, count: int, times: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Follow random points of the surface, uniform by area at time 0.

        Args:
            count: points.
            times: (T,) from 0 to 1.
            rng: the only source of chance.

        Returns:
            (T, count, 3) points, whose row i is the same material point at every time, and (T, count, 3) unit
            outward normals. Matter that lies inside another part at any of the times is left out.

        Raises:
            ValueError: if there are no times, or one is not from 0 to 1.
            GeometryError: if next to no matter is on the surface at all the times.
        """
        times = _checked(times)
        owner, rest = self._material(count, times, rng)
        points, normals = np.empty((2, len(times), count, 3))
        for row, time in enumerate(times):
            for number, part in enumerate(self.parts):
                rows = owner == number
                points[row, rows], normals[row, rows] = part.oriented(rest[rows], time)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        return points, normals

    def occupancy(self, queries: Floats, time: float) -> NDArray[np.bool_]:
        """Whether each query (N, 3) is inside the body at a time from 0 to 1."""
        (time,) = _checked(np.array([time]))
        inside = np.zeros(len(queries), bool)
        for part in self.parts:
            outside = np.flatnonzero(~inside)
            inside[outside] = part.shape.contains(part.inverse(queries[outside], time))
        return inside

    def meshes(self, times: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Closed meshes of the parts, one inside another where the parts overlap.

        Args:
            times: (T,) from 0 to 1.

        Returns:
            (T, V, 3) vertices, all on a part's surface and the same matter at every time, and (F, 3) faces that
            face out. A triangle spans about 2 degrees of its part.
        """
        sphere = trimesh.creation.icosphere(subdivisions=MESH_SUBDIVISIONS)
        rest = [part.shape.along(np.asarray(sphere.vertices))[0] for part in self.parts]
        faces = [sphere.faces + number * len(sphere.vertices) for number in range(len(self.parts))]
        moments = [
            np.concatenate([part.forward(at, time) for part, at in zip(self.parts, rest, strict=True)])
            for time in _checked(times)
        ]
        return np.stack(moments), np.concatenate(faces).astype(np.int64)

    def bounds(self, times: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest x, y, z over all the times, from 0 to 0.6% of the body's size outside of it."""
        directions = _even_directions(EVEN_DIRECTIONS)
        seen = np.concatenate(
            [
                part.forward(part.shape.along(directions)[0], time)
                for time in _checked(times)
                for part in self.parts
            ]
        )
        low, high = seen.min(axis=0), seen.max(axis=0)
        margin = SEEN_MARGIN * float((high - low).max())
        return low - margin, high + margin

    def _material(
        self, count: int, times: Floats, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Floats]:
        """The parts (count,) and rest positions (count, 3) of random surface points exposed at all times."""
        everywhere = _even_directions(EVEN_DIRECTIONS)
        most = AREA_MARGIN * np.array([_areas(part, everywhere)[1].max() for part in self.parts])
        owners, places, missing = [np.empty(0, np.int64)], [np.empty((0, 3))], count
        for _ in range(MOST_ROUNDS):
            if not missing:
                return np.concatenate(owners), np.concatenate(places)
            owner = rng.choice(len(self.parts), 2 * count + 64, p=most / most.sum())
            directions = rng.normal(size=(len(owner), 3))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            rest, area = np.empty_like(directions), np.empty(len(owner))
            for number, part in enumerate(self.parts):
                rows = owner == number
                rest[rows], area[rows] = _areas(part, directions[rows])
            kept = np.flatnonzero(rng.random(len(owner)) * most[owner] < area)
            for time in times:
                kept = kept[self._is_exposed(owner[kept], rest[kept], time)]
            owners.append(owner[kept[:missing]])
            places.append(rest[kept[:missing]])
            missing -= len(owners[-1])
        raise GeometryError(
            f"body {self.seed} ({self.kind}) shows too little of its surface at all of {len(times)} times; "
            "give fewer times or another seed"
        )

    def _is_exposed(self, owner: NDArray[np.int64], rest: Floats, time: float) -> NDArray[np.bool_]:
        """Whether matter of a part's surface is outside all the other parts."""
        points = np.empty_like(rest)
        for number, part in enumerate(self.parts):
            points[owner == number] = part.forward(rest[owner == number], time)
        exposed = np.ones(len(rest), bool)
        for number, part in enumerate(self.parts):
            others = np.flatnonzero(exposed & (owner != number))
            exposed[others] = part.gauge(points[others], time) > 1 + CREASE
        return exposed


def moving_body(seed: int, kind: str | None = None) -> MovingBody:
    """Make one random body.

    Args:
        seed: 0 or more; the only source of chance.
        kind: one of KINDS; None draws it from the seed.

    Raises:
        SettingError: if the kind is unknown or the seed negative.
    """
    check_at_least(0, seed=seed)
    if kind is None:
        kind = KINDS[np.random.default_rng(seed).integers(len(KINDS))]
    if kind not in KINDS:
        raise SettingError(f"no moving body of kind {kind!r}; there are {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    return MovingBody(kind, seed, tuple(BodyPart(*solid) for solid in DESIGNS[kind](rng)))


def _checked(times: Floats) -> Floats:
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not len(times) or not ((times >= 0) & (times <= 1)).all():
        raise ValueError(f"a body moves from time 0 to 1; give one or more times there, not {times}")
    return times


def _even_directions(count: int) -> Floats:
    """(count, 3) unit vectors, a Fibonacci lattice on the sphere."""
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    z = 1 - (2 * np.arange(count) + 1) / count
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)


def _cofactors(matrices: Floats) -> Floats:
    """(N, 3, 3) determinants times inverse transposes of matrices (N, 3, 3)."""
    first, second = matrices[:, NEXT][:, :, NEXT], matrices[:, PREVIOUS][:, :, PREVIOUS]
    cofactors: Floats = first * second - matrices[:, NEXT][:, :, PREVIOUS] * matrices[:, PREVIOUS][:, :, NEXT]
    return cofactors


def _areas(part: BodyPart, directions: Floats) -> tuple[Floats, Floats]:
    """Rest positions (N, 3) along directions, and areas (N,) a solid angle at time 0."""
    rest, areas = part.shape.along(directions)
    return rest, areas * np.linalg.norm(part.oriented(rest, 0.0)[1], axis=1)
