"""Mesh checks against trimesh and hand-made flaws."""

import numpy as np
import pytest
import trimesh

from preprocessing.mesh_checks import check_mesh

BOX = trimesh.creation.box()
VERTICES, FACES = np.asarray(BOX.vertices, np.float64), np.asarray(BOX.faces, np.int64)


@pytest.mark.parametrize("mesh", [BOX, trimesh.creation.icosphere(3), trimesh.creation.torus(1, 0.3)])
def test_sound_meshes_pass_and_volumes_agree(mesh: trimesh.Trimesh) -> None:
    check = check_mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    assert check.is_clean
    assert mesh.is_watertight
    assert check.volume == pytest.approx(mesh.volume)


def test_a_missing_face_leaves_three_boundary_edges() -> None:
    check = check_mesh(VERTICES, FACES[1:])
    assert (check.boundary_edges, check.is_watertight) == (3, False)


def test_a_flipped_face_makes_its_edges_inconsistent() -> None:
    faces = FACES.copy()
    faces[0] = faces[0][::-1]
    assert check_mesh(VERTICES, faces).nonmanifold_edges == 3


def test_a_third_face_on_an_edge_is_not_manifold() -> None:
    vertices = np.vstack([VERTICES, [[3, 3, 3]]])
    check = check_mesh(vertices, np.vstack([FACES, [[FACES[0, 0], FACES[0, 1], 8]]]))
    assert check.nonmanifold_edges == 1
    assert check.boundary_edges == 2


def test_duplicates_degenerates_and_unused_vertices_are_counted() -> None:
    vertices = np.vstack([VERTICES, VERTICES[:1], [[9, 9, 9]]])
    faces = np.vstack([FACES, FACES[:1], [[0, 0, 1]]])
    check = check_mesh(vertices, faces)
    assert check.duplicate_vertices == 1
    assert check.duplicate_faces == 1
    assert check.degenerate_faces == 1
    assert check.unused_vertices == 2
    assert not check.is_clean


def test_an_empty_mesh_is_not_watertight() -> None:
    assert not check_mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64)).is_watertight
