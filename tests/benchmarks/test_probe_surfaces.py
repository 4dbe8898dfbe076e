"""The exact surfaces of `benchmarks.planes`, and how crossings are found."""

import numpy as np
import pytest

from benchmarks.planes import outward_crossings
from benchmarks.probe_surfaces import FEET_RADIUS, cylinder, random_direction, slab, sphere

NORMAL = np.array([0.48, -0.6, 0.64])


def _distance(kind: str, places: np.ndarray) -> np.ndarray:
    """Signed distance outwards of the surfaces below, by their closed forms; the middle is the origin."""
    if kind == "slab":
        return np.abs(places @ NORMAL) - 2.5
    if kind == "sphere":
        return np.linalg.norm(places + 6 * NORMAL, axis=1) - 6
    from_center = np.linalg.norm(places + 30 * NORMAL, axis=1)
    return np.maximum(from_center - 30, 25 - from_center)


SURFACES = {
    "slab": slab("slab", NORMAL, 5.0),
    "sphere": sphere("sphere", 6.0, None, NORMAL),
    "shell": sphere("shell", 30.0, 5.0, NORMAL),
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


def test_a_cylinder_reaches_to_both_ends_of_the_crop():
    normal = random_direction(np.random.default_rng(2))
    probe = cylinder("cylinder", 3.0, None, normal).probe(4.0, 40.0, 100, np.random.default_rng(3))
    axis = np.linalg.svd(probe.points - probe.points.mean(axis=0), full_matrices=False)[2][0]
    assert abs(axis @ normal) < 0.02
    assert np.ptp(probe.points @ axis) == pytest.approx(80, rel=0.05)


def test_a_crossing_is_interpolated_and_the_nearest_to_the_surface_counts():
    offsets = np.linspace(-1.5, 1.5, 25)
    rows = np.stack([0.3 - offsets, np.cos(2 * np.pi * offsets) - 0.5, offsets, np.full(25, -1.0)])
    found = outward_crossings(rows, offsets)
    assert found[0] == pytest.approx(0.3)
    assert found[1] == pytest.approx(1 / 6, abs=0.01)  # rises at -1/6, falls at 1/6
    assert np.isnan(found[2:]).all()  # inwards only; none at all
