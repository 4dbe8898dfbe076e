"""The exact surfaces of `benchmarks.planes`, and how crossings are found."""

import numpy as np
import pytest
import trimesh

from benchmarks.planes import outward_crossings
from benchmarks.probe_solids import ProbeSolid
from benchmarks.probe_surfaces import FEET_RADIUS, pipe, random_direction, slab, sphere_shell

NORMAL = np.array([0.48, -0.6, 0.64])


def _distance(kind: str, places: np.ndarray) -> np.ndarray:
    """Signed distance outwards of the surfaces below, by their closed forms; the middle is the origin."""
    if kind == "slab":
        return np.abs(places @ NORMAL) - 2.5
    from_center = np.linalg.norm(places + 30 * NORMAL, axis=1)
    return np.maximum(from_center - 30, 25 - from_center)


SURFACES = {
    "slab": slab("slab", NORMAL, 5.0),
    "shell": sphere_shell("shell", 30.0, 5.0, NORMAL),
}


@pytest.mark.parametrize("kind", SURFACES)
def test_feet_lie_on_the_surface_and_normals_lead_out(kind):
    probe = SURFACES[kind].probe(4.0, 40.0, 500, np.random.default_rng(0))
    assert len(probe.feet) > 100
    assert np.linalg.norm(probe.feet, axis=1).max() < FEET_RADIUS
    np.testing.assert_allclose(_distance(kind, probe.points), 0, atol=1e-9)
    np.testing.assert_allclose(_distance(kind, probe.feet), 0, atol=1e-9)
    np.testing.assert_allclose(_distance(kind, probe.feet + 0.3 * probe.normals), 0.3, atol=1e-9)


def test_points_have_the_density_asked_for():
    rng = np.random.default_rng(1)
    points = slab("slab", NORMAL, 5.0).probe(4.0, 20.0, 1, rng).points
    near = np.linalg.norm(points - 2.5 * NORMAL * np.sign(points @ NORMAL)[:, None], axis=1) < 10
    assert near.sum() == pytest.approx(2 * 4.0 * np.pi * 100, rel=0.1)


def test_a_pipe_reaches_to_both_ends_of_the_crop():
    normal = random_direction(np.random.default_rng(2))
    probe = pipe("pipe", 3.0, 1.0, normal).probe(4.0, 40.0, 100, np.random.default_rng(3))
    axis = np.linalg.svd(probe.points - probe.points.mean(axis=0), full_matrices=False)[2][0]
    assert abs(axis @ normal) < 0.02
    assert np.ptp(probe.points @ axis) == pytest.approx(80, rel=0.05)


@pytest.mark.parametrize(
    "solid", [ProbeSolid("ball", 7.0), ProbeSolid("cylinder", 7.0, 15.0)], ids=lambda s: s.name
)
def test_points_of_a_solid_lie_on_it_with_the_density_asked_for(solid):
    points, normals = solid.sample(20.0, np.random.default_rng(4))
    kept = solid.is_measured(points)
    np.testing.assert_allclose(solid.distance(points[kept]), 0, atol=1e-9)
    np.testing.assert_allclose(solid.distance(points[kept] + 0.3 * normals[kept]), 0.3, atol=1e-9)
    area = 4 * np.pi * 49 if solid.half_height is None else 2 * np.pi * 7 * (2 * 15 + 7)
    assert len(points) == pytest.approx(20 * area, rel=0.02)
    mesh = trimesh.creation.icosphere(4, 7.0)
    if solid.half_height is not None:
        mesh = trimesh.creation.cylinder(7.0, 30.0, sections=256)
    assert np.abs(trimesh.proximity.signed_distance(mesh, points[::50])).max() < 0.02


def test_a_crossing_is_interpolated_and_the_nearest_to_the_surface_counts():
    offsets = np.linspace(-1.5, 1.5, 25)
    rows = np.stack([0.3 - offsets, np.cos(2 * np.pi * offsets) - 0.5, offsets, np.full(25, -1.0)])
    found = outward_crossings(rows, offsets)
    assert found[0] == pytest.approx(0.3)
    assert found[1] == pytest.approx(1 / 6, abs=0.01)  # rises at -1/6, falls at 1/6
    assert np.isnan(found[2:]).all()  # inwards only; none at all
