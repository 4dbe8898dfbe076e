"""Which parts of a surface stations see."""

import numpy as np
import pytest

from benchmarks.seen_surface import bisected, seen_surface
from preprocessing.procedural.scanner import ScannerConfig
from preprocessing.procedural.solids import box, union_mesh


def _area(corners):
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return 0.5 * np.linalg.norm(cross, axis=1).sum()


def test_cut_faces_cover_the_same_area_and_none_is_too_long():
    corners = np.random.default_rng(0).normal(size=(5, 3, 3))
    parts = bisected(corners, 0.3)
    assert _area(parts) == pytest.approx(_area(corners))
    assert np.linalg.norm(parts - np.roll(parts, -1, axis=1), axis=2).max() <= 0.3


def test_a_station_sees_the_face_before_it_and_not_what_a_wall_hides():
    cube, wall = box((0, -0.5, 0), (1, 0.5, 1)), box((2, -0.5, 0.5), (2.1, 0.5, 2))
    vertices, faces = union_mesh([cube, wall])
    surface = seen_surface(vertices, faces, np.array([[6.0, 0.0, 0.5]]), ScannerConfig(), 0.02)
    middles = surface.vertices[surface.seen].mean(axis=1)
    on_cube = middles[middles[:, 0] < 1.5]
    assert on_cube[:, 0].min() == pytest.approx(1, abs=1e-4)  # only the face towards the station
    assert on_cube[:, 2].max() == pytest.approx(0.5, abs=0.02)  # the wall begins at the station's height
    assert on_cube[:, 2].min() < 0.03
    assert middles[middles[:, 0] > 1.5][:, 0].min() == pytest.approx(2.1, abs=1e-4)
    queries = np.array([[1.2, 0.0, 0.2], [1.2, 0.0, 0.9], [-0.2, 0.0, 0.2]])
    np.testing.assert_array_equal(surface.is_nearest_seen(queries), [True, False, False])
