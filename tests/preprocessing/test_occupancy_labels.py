"""Labels by ray parity against closed forms, at any magnitude of coordinates."""

import numpy as np
import pytest

from preprocessing.errors import MeshError
from preprocessing.occupancy_labels import Solid, label_mesh, signed_distances, unpaired_edges
from preprocessing.procedural.solids import box, ring, union_mesh


@pytest.mark.parametrize("offset", [0.0, 2.5e6])
def test_box_labels_are_those_of_its_inequalities(offset):
    solid = box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    queries = np.random.default_rng(2).uniform(-0.5, 3.5, (20_000, 3))
    truth = ((queries > 0) & (queries < [1.0, 2.0, 3.0])).all(axis=1)
    clear = np.abs(queries[:, None] - [[[0.0, 0, 0], [1, 2, 3]]]).min(axis=(1, 2)) > 1e-5
    labels = label_mesh(solid.vertices + offset, solid.faces, queries + offset)
    assert np.array_equal(labels[clear], truth[clear])


def test_the_hole_of_a_ring_is_outside():
    vertices, faces = union_mesh(ring(0.5, 0.1, 48, 24))
    queries = np.random.default_rng(2).uniform(-0.7, 0.7, (20_000, 3)) * [1, 1, 0.3]
    tube = np.hypot(np.hypot(queries[:, 0], queries[:, 1]) - 0.5, queries[:, 2])
    clear = np.abs(tube - 0.1) > 0.003  # facets lie up to 1 - cos(pi / 24) of 0.6 inside the true torus
    labels = label_mesh(vertices, faces, queries)
    assert np.array_equal(labels[clear], tube[clear] < 0.1)


def test_an_open_mesh_is_refused_with_its_count_of_open_edges():
    solid = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert unpaired_edges(solid.faces) == 0
    with pytest.raises(MeshError, match="3 of its edges"):
        label_mesh(solid.vertices, solid.faces[1:], np.zeros((1, 3)))


@pytest.mark.parametrize("offset", [0.0, 2.5e6])
def test_signed_distances_of_a_box_are_those_of_its_closed_form(offset):
    low, high = np.zeros(3), np.array([1.0, 2.0, 3.0])
    solid = box(tuple(low), tuple(high))
    queries = np.random.default_rng(5).uniform(-1.5, 4.5, (20_000, 3))
    beyond = np.maximum(np.maximum(low - queries, queries - high), 0)
    depth = np.minimum(queries - low, high - queries).min(axis=1)
    truth = np.where(depth > 0, -depth, np.linalg.norm(beyond, axis=1))
    found = signed_distances(solid.vertices + offset, solid.faces, queries + offset, depth > 0)
    np.testing.assert_allclose(found, truth, rtol=0, atol=2e-6)


@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("answer", [0, 1])
def test_a_ray_that_errs_is_outvoted(wrong, answer, monkeypatch):
    solid = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    queries = np.random.default_rng(6).uniform(-0.5, 1.5, (500, 3))
    ray_by_ray, calls = Solid._winding, []

    def winding(self, local, direction):
        calls.append(direction)
        right = ray_by_ray(self, local, direction)
        return np.full_like(right, answer) if len(calls) - 1 == wrong else right

    monkeypatch.setattr(Solid, "_winding", winding)
    inside = Solid(solid.vertices, solid.faces).occupancy(queries)
    assert len(calls) == 3
    assert np.array_equal(inside, ((queries > 0) & (queries < 1)).all(axis=1))


def test_a_mesh_that_is_inside_out_is_read_as_if_turned_right():
    solid = box((0.0, 0.0, 0.0), (1.0, 2.0, 1.0))
    queries = np.random.default_rng(7).uniform(-0.5, 2.5, (2_000, 3))
    inside = Solid(solid.vertices, solid.faces[:, ::-1]).occupancy(queries)
    assert np.array_equal(inside, ((queries > 0) & (queries < [1, 2, 1])).all(axis=1))
