"""A closed solid from a triangle soup: what cannot be seen from outside is inside.

The idea of multi-view depth fusion (Curless and Levoy 1996; for shape collections Stutz and Geiger 2018), with rays in
place of depth maps: a lattice point is outside when rays from it escape in enough directions. Nothing depends on
the faces' orientation, so holes, flipped and repeated faces, and walls inside do no harm. A sheet that is seen from
both sides has no inside; it becomes a thin solid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from foundation.errors import SettingError
from preprocessing.errors import MeshError
from preprocessing.native import ray_threads, ray_tree, tensor
from preprocessing.watertight.cleaning import Soup

CUBE_SIDE = 1.1  # of the lattice, around the unit cube that the soup fits into
BAND = 2.5  # lattice spacings around the surface where every point's visibility is asked
SHEET_DEPTH = 1.0  # spacings behind the surface within which a solid counts as a sheet
SHEET_RADIUS = 0.6  # spacings by which a sheet is thickened to both sides
COARSE = 4
COMPONENT_SAMPLES = 256
RAYS_PER_BATCH = 1 << 14  # what stays in a core's own cache: workers then do not slow one another down


@dataclass(frozen=True)
class VisibilityConfig:
    """How finely to look.

    Attributes:
        resolution: lattice cells along the padded cube's side.
        directions: rays from a point, spread evenly over the sphere.
        needed: escaping rays that make a point outside; more than one, so that a crack is no window.
    """

    resolution: int = 128
    directions: int = 96
    needed: int = 2

    def __post_init__(self) -> None:
        if self.resolution < 16 or not 1 <= self.needed <= self.directions:
            raise SettingError("resolution must be at least 16, and needed between 1 and directions")

    @property
    def spacing(self) -> float:
        """Distance of lattice points, in unit cubes."""
        return CUBE_SIDE / self.resolution


def even_directions(count: int) -> NDArray[np.float64]:
    """(count, 3) unit vectors on a Fibonacci spiral, in an order that covers the sphere early."""
    number = np.arange(count) + 0.5
    height, angle = 1 - 2 * number / count, np.pi * (1 + 5**0.5) * number
    radius = np.sqrt(1 - height**2)
    spiral = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return spiral[np.random.default_rng(0).permutation(count)]


class Surroundings:
    """What can be seen from a point: a soup in a ray tree.

    Args:
        vertices, faces: a soup in the unit cube centered at 0.
    """

    def __init__(
        self, vertices: NDArray[np.float64], faces: NDArray[np.int64], config: VisibilityConfig
    ) -> None:
        self._scene = ray_tree([(vertices, faces)])
        self._directions = even_directions(config.directions).astype(np.float32)
        self._needed = config.needed

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """(N,) unsigned distance to the surface."""
        return np.asarray(self._scene.compute_distance(tensor(points), nthreads=ray_threads()).numpy())

    def nearest(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Nearest surface points (N, 3) and the normals (N, 3) of their faces."""
        found = self._scene.compute_closest_points(tensor(points), nthreads=ray_threads())
        return found["points"].numpy(), found["primitive_normals"].numpy()

    def is_seen(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N,) whether enough rays escape from a point."""
        seen = np.zeros(len(points), np.bool_)
        for start in range(0, len(points), RAYS_PER_BATCH):
            batch = np.asarray(points[start : start + RAYS_PER_BATCH], np.float32)
            escaped = np.zeros(len(batch), np.int32)
            open_rows = np.arange(len(batch))
            for direction in self._directions:
                rays = np.concatenate(
                    [batch[open_rows], np.broadcast_to(direction, (len(open_rows), 3))], axis=1
                )
                escaped[open_rows] += ~self._scene.test_occlusions(
                    tensor(rays), nthreads=ray_threads()
                ).numpy()
                open_rows = open_rows[escaped[open_rows] < self._needed]
                if not len(open_rows):
                    break
            seen[start : start + RAYS_PER_BATCH] = escaped >= self._needed
        return seen


def solidify(surroundings: Surroundings, config: VisibilityConfig) -> Soup:
    """The boundary of everything that cannot be seen from outside, as a closed surface.

    Args:
        surroundings: the soup, in the unit cube centered at 0.
        config: lattice and rays.

    Returns:
        (V, 3) float64 vertices and (F, 3) int64 faces, facing out.

    Raises:
        MeshError: if nothing is inside.
    """
    count = config.resolution + 1
    spacing = config.spacing
    axis = (np.arange(count) - config.resolution / 2) * spacing
    field = np.full((count, count, count), np.nan, np.float32)
    band = _band(surroundings, axis, spacing)
    places = np.stack([axis[column] for column in band], axis=1)
    field[band] = _signed_distance(surroundings, places, spacing)
    _fill_components(field, surroundings, axis, BAND * spacing)
    # Whatever outside region does not reach the lattice's border is inside.
    labels, _ = ndimage.label(field > 0)
    field[(labels > 0) & (labels != labels[0, 0, 0])] *= -1
    if not (field < 0).any():
        raise MeshError("encloses nothing and is thinner than the lattice can hold")
    # A vertex exactly on a lattice point would be shared by many cells' edges and leave empty faces.
    field = np.where(np.abs(field) < 1e-3 * spacing, np.copysign(np.float32(1e-3 * spacing), field), field)
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="descent")  # type: ignore[no-untyped-call]
    return vertices.astype(np.float64) * spacing + axis[0], faces.astype(np.int64)


def _band(
    surroundings: Surroundings, axis: NDArray[np.floating], spacing: float
) -> tuple[NDArray[np.int64], ...]:
    """Indices along x, y, z of the lattice points near the surface: coarse cells first, then their points."""
    coarse = axis[::COARSE]
    grid = np.stack(np.meshgrid(coarse, coarse, coarse, indexing="ij"), axis=-1).reshape(-1, 3)
    reach = (0.5 * COARSE * 3**0.5 + BAND) * spacing
    near = np.stack(
        np.unravel_index(np.flatnonzero(surroundings.distance(grid) < reach), (len(coarse),) * 3), 1
    )
    # Each coarse point stands for the cube of fine points nearest to it.
    offsets = np.stack(np.meshgrid(*[np.arange(COARSE) - COARSE // 2] * 3, indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    fine = (near[:, None] * COARSE + offsets).reshape(-1, 3)
    fine = fine[((fine >= 0) & (fine < len(axis))).all(axis=1)]
    fine = fine[surroundings.distance(axis[fine]) < BAND * spacing]
    return fine[:, 0], fine[:, 1], fine[:, 2]


def _signed_distance(
    surroundings: Surroundings, places: NDArray[np.float64], spacing: float
) -> NDArray[np.float32]:
    """Distance of points near the surface, negative inside; sheets are thickened."""
    nearest, normals = surroundings.nearest(places)
    away = places - nearest
    distance = np.linalg.norm(away, axis=1)
    is_seen = surroundings.is_seen(places)
    touching = distance < 1e-3 * spacing
    away = np.where(touching[:, None], normals, away / np.maximum(distance, 1e-12)[:, None])
    result = np.where(is_seen, distance, -distance)
    rows = np.flatnonzero(is_seen | touching)
    behind = surroundings.is_seen(nearest[rows] - SHEET_DEPTH * spacing * away[rows])
    sheet = rows[behind]
    result[sheet] = distance[sheet] - SHEET_RADIUS * spacing
    return np.asarray(result, np.float32)


def _fill_components(
    field: NDArray[np.float32], surroundings: Surroundings, axis: NDArray[np.floating], value: float
) -> None:
    """Give each connected region away from the surface one sign: that of most of a sample of its points."""
    labels, regions = ndimage.label(np.isnan(field))
    order = np.argsort(labels, axis=None, kind="stable")
    starts = np.searchsorted(labels.ravel()[order], np.arange(1, regions + 2))
    rng = np.random.default_rng(0)
    outside = labels[0, 0, 0]
    signs = np.zeros(regions + 1, np.float32)
    for region in range(1, regions + 1):
        members = order[starts[region - 1] : starts[region]]
        sample = rng.choice(members, min(len(members), COMPONENT_SAMPLES), replace=False)
        points = axis[np.stack(np.unravel_index(sample, field.shape), axis=1)]
        is_outside = region == outside or surroundings.is_seen(points).mean() > 0.5
        signs[region] = value if is_outside else -value
    missing = labels > 0
    field[missing] = signs[labels[missing]]
