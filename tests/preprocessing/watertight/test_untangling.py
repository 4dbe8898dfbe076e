"""Crossing faces: found as by comparing all pairs, and ended by small moves."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from preprocessing.errors import MeshError
from preprocessing.native import load_open3d
from preprocessing.watertight import untangling
from preprocessing.watertight.untangling import self_crossings, untangle


def all_pairs(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces.astype(np.int32))
    )
    return np.unique(np.asarray(mesh.get_self_intersecting_triangles()))


def ball(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(3)
    rng = np.random.default_rng(seed)
    return mesh.vertices + rng.normal(0, noise, mesh.vertices.shape), np.asarray(mesh.faces, np.int64)


@pytest.mark.parametrize("piece_faces", [3, 40, 5000])
@pytest.mark.parametrize("noise", [0.0, 0.06, 0.2])
def test_crossings_are_those_of_all_pairs(
    noise: float, piece_faces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untangling, "PIECE_FACES", piece_faces)
    vertices, faces = ball(noise)
    expected = all_pairs(vertices, faces)
    assert (len(expected) > 0) == (noise > 0)
    np.testing.assert_array_equal(self_crossings(vertices, faces), expected)


def test_long_faces_that_cross_everywhere_are_found() -> None:
    rng = np.random.default_rng(1)
    vertices = rng.normal(size=(900, 3))
    faces = rng.permutation(900).reshape(-1, 3)
    np.testing.assert_array_equal(self_crossings(vertices, faces), all_pairs(vertices, faces))


def test_folds_end_and_the_rest_stays() -> None:
    vertices, faces = ball(0.0)
    cap = vertices[:, 2] > 0.8
    folded = np.where(cap[:, None], ball(0.08)[0], vertices)
    assert len(self_crossings(folded, faces)) > 5
    result, same = untangle((folded, faces), spacing=0.2)
    assert len(all_pairs(result, faces)) == 0
    assert same is faces
    np.testing.assert_array_equal(result[vertices[:, 2] < 0.6], vertices[vertices[:, 2] < 0.6])


def test_a_surface_that_does_not_cross_is_left_alone() -> None:
    vertices, faces = ball(0.0)
    np.testing.assert_array_equal(untangle((vertices, faces), 0.1)[0], vertices)


def test_crossings_larger_than_the_moves_are_refused() -> None:
    parts = trimesh.util.concatenate(
        [trimesh.creation.icosphere(2), trimesh.creation.icosphere(2).apply_translation([0.7, 0, 0])]
    )
    with pytest.raises(MeshError, match=r"crosses itself: [0-9]+ faces"):
        untangle((np.asarray(parts.vertices), np.asarray(parts.faces, np.int64)), 1e-4, rounds=5)
