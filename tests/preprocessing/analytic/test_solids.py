"""Signed distances against dense samples of the surfaces, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from preprocessing.analytic.solids import (
    Blob,
    Box,
    Capsule,
    Carved,
    Cylinder,
    HalfSpace,
    Hull,
    Placed,
    Sheet,
    Shell,
    Solid,
    Sphere,
    Terrain,
    Torus,
    Union,
)
from preprocessing.analytic.surface import is_seen, surface_points
from preprocessing.rotations import random_rotation

RNG = np.random.default_rng(5)
SIDE = 24
PRIMITIVES: dict[str, Solid] = {
    "box": Box((5.0, 3.0, 7.0)),
    "rounded box": Box((5.0, 3.0, 7.0), rounding=1.5),
    "sphere": Sphere(6.0),
    "cylinder": Cylinder(4.0, 6.0),
    "cone": Cylinder(6.0, 5.0, top=1.0),
    "capsule": Capsule(2.0, 6.0),
    "torus": Torus(6.0, 2.0),
}
FIRST_ORDER: dict[str, Solid] = {
    "blob": Blob(
        np.array([[0, 0, 0], [4, 2, 1]], np.float32), np.array([4.0, 3.0], np.float32), softness=0.8
    ),
    "terrain": Terrain(np.array([[0.2, 0.1, 0.5, 1.5], [0.05, -0.2, 1.0, 1.0]], np.float32)),
    "hull": Hull(np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32), np.full(6, 5.0, np.float32)),
}


def placed(solid: Solid) -> Placed:
    """Turned, and moved into the middle of the cube."""
    rotation = random_rotation(np.random.default_rng(3))
    return Placed(solid, rotation, np.full(3, SIDE / 2, np.float32))


@pytest.mark.parametrize("name", list(PRIMITIVES))
def test_distances_of_primitives_are_those_to_dense_points_of_the_surface(name: str) -> None:
    solid = placed(PRIMITIVES[name])
    points, _ = surface_points(solid, SIDE, 60_000, np.random.default_rng(0))
    queries = np.random.default_rng(1).uniform(1, SIDE - 1, (3_000, 3)).astype(np.float32)
    nearest, _ = cKDTree(points).query(queries)
    # 60,000 points on some hundred square voxels leave gaps of up to 0.25: at distance d they add up to 0.25^2 / 2d.
    away = np.abs(solid.distance(queries))
    np.testing.assert_allclose(away[away > 0.5], nearest[away > 0.5], atol=0.0625)
    assert (nearest[away <= 0.5] > away[away <= 0.5] - 1e-3).all()


@pytest.mark.parametrize("name", list(FIRST_ORDER))
def test_distances_of_the_others_are_right_near_the_surface(name: str) -> None:
    solid = placed(FIRST_ORDER[name])
    points, normals = surface_points(solid, SIDE, 2_000, np.random.default_rng(0))
    inside = ((points > 3) & (points < SIDE - 3)).all(axis=1)
    for step in (-0.5, 0.5):
        moved = (points + step * normals)[inside].astype(np.float32)
        # Second order: half a voxel along the normal of a surface whose radius of curvature is 3 and more.
        assert np.median(np.abs(solid.distance(moved) - step)) < 0.03


@pytest.mark.parametrize("name", [*PRIMITIVES, *FIRST_ORDER])
def test_surface_points_lie_on_the_surface_and_their_normals_point_outwards(name: str) -> None:
    solid = placed((PRIMITIVES | FIRST_ORDER)[name])
    points, normals = surface_points(solid, SIDE, 5_000, np.random.default_rng(0))
    away = np.abs(solid.distance(points))
    # One projection: beyond the corners of a hull, where its distance is a bound, most of the band may remain.
    assert away.max() < 0.25
    assert np.quantile(away, 0.95) < 0.02
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3)
    outside = solid.distance((points + 0.2 * normals).astype(np.float32)) > 0
    assert outside.mean() > 0.99


def test_points_are_spread_evenly_over_a_sphere() -> None:
    points, _ = surface_points(placed(Sphere(8.0)), SIDE, 40_000, np.random.default_rng(0))
    directions = (points - SIDE / 2) / 8
    for axis in range(3):  # by Archimedes each coordinate of a uniform point is uniform
        counts, _ = np.histogram(directions[:, axis], bins=10, range=(-1, 1))
        assert np.abs(counts / counts.mean() - 1).max() < 0.1


def test_unions_cuts_shells_and_sheets_have_the_signs_of_their_sets() -> None:
    a, b = (
        Sphere(5.0),
        Placed(Box((3.0, 3.0, 3.0)), np.eye(3, dtype=np.float32), np.array([4, 0, 0], np.float32)),
    )
    queries = RNG.uniform(-9, 9, (5_000, 3)).astype(np.float32)
    in_a, in_b = a.distance(queries) < 0, b.distance(queries) < 0
    np.testing.assert_array_equal(Union([a, b]).distance(queries) < 0, in_a | in_b)
    np.testing.assert_array_equal(Carved(a, b).distance(queries) < 0, in_a & ~in_b)
    radius = np.linalg.norm(queries, axis=1)
    np.testing.assert_array_equal(Sheet(a, 2.0).distance(queries) < 0, (radius < 5) & (radius > 3))
    np.testing.assert_array_equal(Shell(a, 2.0).distance(queries) < 0, (radius > 4) & (radius < 6))
    np.testing.assert_allclose(HalfSpace().distance(queries), queries[:, 2], atol=1e-6)


def test_a_point_is_seen_where_nothing_is_in_the_way() -> None:
    """A ball beside a wall: from a station, the wall is dark where the line passes within the ball."""
    wall = Placed(Box((1.0, 12.0, 12.0)), np.eye(3, dtype=np.float32), np.array([20, 12, 12], np.float32))
    ball = Placed(Sphere(3.0), np.eye(3, dtype=np.float32), np.array([12, 12, 12], np.float32))
    station = np.array([2.0, 12.0, 12.0], np.float32)
    y, z = (part.ravel() for part in np.meshgrid(np.arange(2, 22.0), np.arange(2, 22.0)))
    points = np.column_stack([np.full(len(y), 19.0), y, z]).astype(np.float32)
    normals = np.tile(np.array([-1, 0, 0], np.float32), (len(points), 1))
    seen = is_seen(Union([wall, ball]), points, normals, station)
    ways = points - station
    along = (np.array([12, 12, 12]) - station) @ ways.T / (ways**2).sum(axis=1)
    passing = np.linalg.norm(station + along[:, None] * ways - 12, axis=1)
    clear = np.abs(passing - 3) > 0.25
    np.testing.assert_array_equal(seen[clear], passing[clear] > 3)
    assert not is_seen(wall, points, -normals, station).any()
