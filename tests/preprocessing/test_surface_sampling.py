"""Surface samples: on the surface, uniform by area, normals outward."""

import numpy as np
import pytest
from scipy.stats import chisquare

from preprocessing.errors import MeshError
from preprocessing.procedural.solids import box
from preprocessing.surface_sampling import sample_surface

SOLID = box((0.0, 0.0, 0.0), (1.0, 2.0, 4.0))


def test_box_faces_receive_points_by_their_area():
    points, normals = sample_surface(SOLID.vertices, SOLID.faces, 40_000, np.random.default_rng(1))
    axis, is_high = np.abs(normals).argmax(axis=1), normals.sum(axis=1) > 0
    face = np.array([0.0, 0.0, 0.0]), np.array([1.0, 2.0, 4.0])
    rows = np.arange(len(points))
    assert np.allclose(points[rows, axis], np.where(is_high, face[1][axis], face[0][axis]), atol=1e-12)
    counts = np.bincount(axis * 2 + is_high, minlength=6)
    areas = np.array([8.0, 8.0, 4.0, 4.0, 2.0, 2.0])
    assert chisquare(counts, 40_000 * areas / areas.sum()).pvalue > 1e-4
    # Within one face the other two coordinates are uniform too.
    top = points[(axis == 0) & is_high][:, 1:] / [2.0, 4.0]
    cells = np.bincount((top[:, 0] * 4).astype(int) * 4 + (top[:, 1] * 4).astype(int), minlength=16)
    assert chisquare(cells).pvalue > 1e-4


def test_same_seed_same_points_at_any_magnitude():
    far = SOLID.vertices + 1e6
    first = sample_surface(far, SOLID.faces, 100, np.random.default_rng(5))
    second = sample_surface(far, SOLID.faces, 100, np.random.default_rng(5))
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()
    near, _ = sample_surface(SOLID.vertices, SOLID.faces, 100, np.random.default_rng(5))
    assert np.abs(first[0] - near - 1e6).max() < 1e-8


def test_faces_without_area_are_never_chosen():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0]])
    faces = np.array([[0, 1, 3], [0, 1, 2], [1, 1, 2]])
    points, normals = sample_surface(vertices, faces, 1000, np.random.default_rng(0))
    assert np.array_equal(normals, np.tile([0.0, 0.0, 1.0], (1000, 1)))
    assert points[:, :2].sum(axis=1).max() <= 1.0 + 1e-12


def test_a_mesh_without_area_is_refused():
    with pytest.raises(MeshError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 10, np.random.default_rng(0))
