"""Mesh checks against trimesh and hand-made flaws."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import MeshError
from preprocessing.meshes import checks as mesh_checks
from preprocessing.meshes.checks import check_mesh
from preprocessing.native import load_open3d

BOX = trimesh.creation.box()
VERTICES, FACES = np.asarray(BOX.vertices, np.float64), np.asarray(BOX.faces, np.int64)


@pytest.mark.parametrize("mesh", [BOX, trimesh.creation.icosphere(3), trimesh.creation.torus(1, 0.3)])
def test_sound_meshes_pass_and_volumes_agree(mesh: trimesh.Trimesh) -> None:
    check = check_mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    assert check.is_clean
    assert mesh.is_watertight
    assert check.volume == pytest.approx(mesh.volume)
    assert check.euler_number == mesh.euler_number
    assert check.components == mesh.body_count == 1


@settings(max_examples=60, deadline=None)
@given(
    faces=st.lists(st.tuples(*[st.integers(0, 7)] * 3), min_size=1, max_size=40),
    block=st.sampled_from([1, 3, 1 << 21]),
)
def test_counts_of_any_faces_agree_with_a_plain_count(faces: list, block: int) -> None:
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    parent = list(range(8))

    def root(vertex: int) -> int:
        return vertex if parent[vertex] == vertex else root(parent[vertex])

    for face in faces:
        for start, end in zip(face, face[1:] + face[:1], strict=True):
            edges.setdefault((min(start, end), max(start, end)), []).append((start, end))
            parent[root(start)] = root(end)
    used = {vertex for face in faces for vertex in face}
    vertices = np.random.default_rng(0).uniform(size=(8, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_checks, "BLOCK_FACES", block)
        check = check_mesh(vertices, np.array(faces))
    assert check.boundary_edges == sum(len(uses) == 1 for uses in edges.values())
    assert check.nonmanifold_edges == sum(
        len(uses) > 2 or len(set(uses)) < len(uses) for uses in edges.values()
    )
    assert check.duplicate_faces == len(faces) - len({tuple(sorted(face)) for face in faces})
    assert check.degenerate_faces == sum(len(set(face)) < 3 for face in faces)
    assert check.unused_vertices == 8 - len(used)
    assert check.components == len({root(vertex) for vertex in used})
    assert check.euler_number == len(used) - len(edges) + len(faces)


@pytest.mark.parametrize("removed", [0, 1, 5])
def test_open3d_agrees_on_closedness(removed: int) -> None:
    o3d = load_open3d()
    ball = trimesh.creation.icosphere(2)
    faces = np.asarray(ball.faces)[removed:]
    theirs = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(ball.vertices), o3d.utility.Vector3iVector(faces)
    )
    check = check_mesh(np.asarray(ball.vertices), faces)
    assert check.is_watertight == theirs.is_watertight()
    assert (check.boundary_edges == 0) == theirs.is_edge_manifold(allow_boundary_edges=False)
    assert check.euler_number == theirs.euler_poincare_characteristic()


def test_separate_parts_and_handles_are_counted() -> None:
    parts = [trimesh.creation.icosphere(2), trimesh.creation.torus(5, 1), trimesh.creation.torus(9, 1)]
    mesh = trimesh.util.concatenate(parts)
    check = check_mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    assert (check.components, check.euler_number) == (3, 2)


@pytest.mark.parametrize("stray", [-1, 8])
def test_a_triangle_of_a_vertex_that_is_not_there_is_refused(stray: int) -> None:
    with pytest.raises(MeshError, match=f"names vertex {stray} of 8"):
        check_mesh(VERTICES, np.vstack([FACES, [[0, 1, stray]]]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vertex_that_is_not_finite_is_not_clean(value: float) -> None:
    vertices = VERTICES.copy()
    vertices[3] = value
    assert not check_mesh(vertices, FACES).is_clean


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
