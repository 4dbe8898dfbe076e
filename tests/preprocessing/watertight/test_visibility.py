"""What is seen from outside, against rays counted one by one, and the solids made of what is not."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from preprocessing.errors import MeshError
from preprocessing.watertight.visibility import Surroundings, VisibilityConfig, even_directions, solidify

COARSE = VisibilityConfig(resolution=32)


def arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def solid_of(mesh: trimesh.Trimesh, config: VisibilityConfig = COARSE) -> trimesh.Trimesh:
    return trimesh.Trimesh(*solidify(Surroundings(*arrays(mesh), config), config), process=False)


@pytest.mark.parametrize("count", [24, 96, 400])
def test_directions_are_unit_and_leave_no_gap(count: int) -> None:
    directions = even_directions(count)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert np.abs(directions.mean(axis=0)).max() < 0.02
    probes = np.random.default_rng(0).normal(size=(5000, 3))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    gap = np.arccos(np.clip((probes @ directions.T).max(axis=1), -1, 1)).max()
    cap = np.arccos(1 - 2 / count)  # half the opening of a cap of the sphere's share
    assert gap < 1.6 * cap
    first = directions[: count // 4]  # early ones cover the sphere too, since most points need few
    assert np.arccos(np.clip((probes @ first.T).max(axis=1), -1, 1)).max() < 1.8


@pytest.mark.parametrize("needed", [1, 2, 40])
def test_seen_is_what_enough_rays_leave(needed: int) -> None:
    """Against trimesh's ray caster, every ray of every point, in a ball with a wide window and a wall inside."""
    shell = trimesh.creation.icosphere(2, 0.5)
    shell.update_faces(shell.triangles_center[:, 2] < 0.43)
    wall = trimesh.creation.box((0.6, 0.02, 0.5))
    mesh = trimesh.util.concatenate([shell, wall])
    config = VisibilityConfig(directions=60, needed=needed)
    points = np.random.default_rng(3).uniform(-0.45, 0.45, (250, 3))
    directions = even_directions(60)
    blocked = mesh.ray.intersects_any(np.repeat(points, 60, axis=0), np.tile(directions, (250, 1)))
    expected = (~blocked).reshape(250, 60).sum(axis=1) >= needed
    assert 0.1 < expected.mean() < 0.97
    assert (Surroundings(*arrays(mesh), config).is_seen(points) == expected).mean() > 0.995  # rays on an edge


def test_distances_and_nearest_points_of_a_box_are_those_of_its_formula() -> None:
    half = np.array([0.5, 0.4, 0.3])
    surroundings = Surroundings(*arrays(trimesh.creation.box(2 * half)), COARSE)
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (5000, 3))
    beyond = np.abs(points) - half
    signed = np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)
    np.testing.assert_allclose(surroundings.distance(points), np.abs(signed), atol=1e-6)
    nearest, normals = surroundings.nearest(points)
    np.testing.assert_allclose(np.linalg.norm(points - nearest, axis=1), np.abs(signed), atol=1e-6)
    np.testing.assert_allclose(np.abs(normals).max(axis=1), 1, atol=1e-6)


def test_a_closed_ball_comes_back_at_its_radius() -> None:
    ball = solid_of(trimesh.creation.icosphere(4, 0.4))
    assert ball.is_watertight
    assert ball.euler_number == 2
    radius = np.linalg.norm(ball.vertices, axis=1)
    # Marching cubes interpolates a distance linearly: off by less than spacing^2 / (8 radius), and the facets.
    assert np.abs(radius - 0.4).max() < COARSE.spacing**2 / (8 * 0.4) + 0.002
    assert ball.volume > 0


def test_shells_inside_are_gone() -> None:
    inner = trimesh.util.concatenate(
        [trimesh.creation.icosphere(2, 0.2), trimesh.creation.box((0.7, 0.02, 0.02))]
    )
    ball = trimesh.creation.icosphere(3, 0.5)
    filled = solid_of(trimesh.util.concatenate([ball, inner]))
    assert filled.body_count == 1
    assert filled.volume == pytest.approx(ball.volume, rel=0.01)


@pytest.mark.parametrize(("height", "tolerance"), [(0.0, 0.01), (0.01, 0.2)])
def test_a_sheet_becomes_a_plate_of_a_lattice_spacing(height: float, tolerance: float) -> None:
    """Exact where the sheet lies on lattice points; between them its distance has a kink that a line cuts."""
    corners = [[-0.5, -0.5, height], [0.5, -0.5, height], [0.5, 0.5, height], [-0.5, 0.5, height]]
    plate = solid_of(trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]]))
    assert plate.is_watertight
    assert plate.euler_number == 2
    thick = 1.2 * COARSE.spacing
    assert plate.extents[2] == pytest.approx(thick, rel=tolerance)
    assert plate.volume == pytest.approx(thick, rel=0.05 + tolerance)  # its rim is not specified


def test_the_smallest_crack_is_no_window_with_two_rays_needed() -> None:
    ball = trimesh.creation.icosphere(4, 0.5)
    cracked = trimesh.Trimesh(ball.vertices, ball.faces[1:], process=False)
    center = np.random.default_rng(1).uniform(-0.2, 0.2, (2000, 3))
    assert not Surroundings(*arrays(cracked), COARSE).is_seen(center).any()
    single = VisibilityConfig(resolution=32, needed=1)
    assert Surroundings(*arrays(cracked), single).is_seen(center).any()


def test_what_falls_between_lattice_points_is_refused() -> None:
    middle = 0.5 * COARSE.spacing
    speck = np.full((3, 3), middle) + np.eye(3) * 1e-3
    with pytest.raises(MeshError, match="thinner than the lattice"):
        solidify(Surroundings(speck, np.array([[0, 1, 2]]), COARSE), COARSE)


@pytest.mark.parametrize("values", [{"resolution": 8}, {"needed": 0}, {"directions": 3, "needed": 4}])
def test_impossible_settings_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="resolution must be at least 16"):
        VisibilityConfig(**values)
