"""Soups made fit to measure: what is dropped, what is turned, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from preprocessing.errors import MeshError
from preprocessing.watertight.cleaning import clean_soup, edge_use, face_parts, orient

BALL = trimesh.creation.icosphere(2)
VERTICES, FACES = np.asarray(BALL.vertices, np.float64), np.asarray(BALL.faces, np.int64)


def corner_sets(vertices: np.ndarray, faces: np.ndarray) -> set[frozenset[tuple[float, ...]]]:
    """Each face as the set of its corners' positions."""
    return {frozenset(map(tuple, corners)) for corners in (vertices[faces] + 0.0).tolist()}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_unmerged_repeated_flipped_and_empty_faces_come_back_as_the_ball(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = np.concatenate([FACES, FACES[rng.integers(len(FACES), size=50)]])
    flipped = rng.random(len(faces)) < 0.5
    faces[flipped] = faces[flipped][:, ::-1]
    faces = np.concatenate([faces, np.stack([FACES[:9, 0], FACES[:9, 1], FACES[:9, 1]], axis=1)])
    faces = faces[rng.permutation(len(faces))]
    soup = VERTICES[faces].reshape(-1, 3)  # every corner a vertex of its own
    vertices, faces = clean_soup(soup, np.arange(len(soup)).reshape(-1, 3))
    assert len(vertices) == len(VERTICES)
    assert len(faces) == len(FACES)
    assert corner_sets(vertices, faces) == corner_sets(VERTICES, FACES)


def test_minus_zero_is_zero() -> None:
    soup = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, -0.0, 0], [0, 1, -0.0], [-1, 0, 0]])
    vertices, faces = clean_soup(soup, np.array([[0, 1, 2], [3, 4, 5]]))
    assert len(vertices) == 4
    assert (edge_use(faces) == 2).sum() == 1


def test_a_sliver_in_a_large_mesh_stays_and_a_face_without_area_goes() -> None:
    vertices = np.vstack([VERTICES, [[2, 0, 0], [3, 0, 0], [2.5, 1e-6, 0], [2.5, 0, 0]]])
    first = len(VERTICES)
    faces = np.vstack([FACES, [[first, first + 1, first + 2], [first, first + 1, first + 3]]])
    cleaned, faces = clean_soup(vertices, faces)
    assert len(faces) == len(FACES) + 1
    assert cKDTree(cleaned).query([[2.5, 1e-6, 0]])[0] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vertices_that_are_not_finite_are_counted(value: float) -> None:
    vertices = VERTICES.copy()
    vertices[[3, 5, 7], 1] = value
    with pytest.raises(MeshError, match="3 of 162 vertices are not finite"):
        clean_soup(vertices, FACES)


def test_a_mesh_of_nothing_is_refused() -> None:
    with pytest.raises(MeshError, match="no faces"):
        clean_soup(VERTICES, FACES[:0])
    with pytest.raises(MeshError, match="no face with an area"):
        clean_soup(VERTICES, np.stack([FACES[:, 0], FACES[:, 1], FACES[:, 1]], axis=1))
    with pytest.raises(MeshError, match="no face with an area"):
        clean_soup(np.ones((3, 3)), np.array([[0, 1, 2]]))


def test_coordinates_too_large_for_the_size_are_refused_and_a_large_object_is_not() -> None:
    with pytest.raises(MeshError, match=r"coordinates reach 1e\+07 at a size of 2: .*move it to the origin"):
        clean_soup(VERTICES + 1e7, FACES)
    assert len(clean_soup(VERTICES * 1e7, FACES)[1]) == len(FACES)
    assert len(clean_soup(VERTICES * 1e-7, FACES)[1]) == len(FACES)


@pytest.mark.parametrize("mesh", [BALL, trimesh.creation.box()], ids=["ball", "box"])
@pytest.mark.parametrize("unmerged", [False, True])
def test_one_stray_vertex_is_refused_unless_no_face_names_it(mesh: trimesh.Trimesh, unmerged: bool) -> None:
    vertices = np.vstack([mesh.vertices, [[1e7, 0, 0]]])
    stray = len(vertices) - 1
    faces = np.vstack([mesh.faces, [[0, 1, stray], [1, 2, stray], [2, 0, stray]]])
    if unmerged:
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)
    with pytest.raises(MeshError, match="stray vertices"):
        clean_soup(vertices, faces)
    assert len(clean_soup(vertices, faces[:-3])[0]) == len(mesh.vertices)


def test_few_vertices_at_the_ends_of_a_long_rod_are_not_stray() -> None:
    rod = trimesh.creation.box((1e4, 1, 1))
    assert len(clean_soup(np.asarray(rod.vertices), np.asarray(rod.faces))[1]) == 12


@settings(max_examples=30, deadline=None)
@given(faces=st.lists(st.permutations(range(8)).map(lambda order: order[:3]), min_size=1, max_size=30))
def test_edge_use_and_parts_agree_with_a_plain_count(faces: list[list[int]]) -> None:
    uses: dict[frozenset[int], list[int]] = {}
    for number, face in enumerate(faces):
        for start, end in zip(face, face[1:] + face[:1], strict=True):
            uses.setdefault(frozenset((start, end)), []).append(number)
    faces = np.array(faces, np.int64)
    assert sorted(edge_use(faces)) == sorted(len(users) for users in uses.values())
    part = list(range(len(faces)))
    for _ in faces:  # the lowest number spreads over shared edges
        for users in uses.values():
            lowest = min(part[user] for user in users)
            for user in users:
                part[user] = lowest
    ours = face_parts(faces, 8)
    assert len(set(zip(ours.tolist(), part, strict=True))) == len(set(part)) == ours.max() + 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_flips_and_inverted_parts_are_turned_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [
        trimesh.creation.icosphere(1),
        trimesh.creation.torus(1, 0.3, major_sections=12, minor_sections=8).apply_translation([4, 0, 0]),
        trimesh.creation.box().apply_translation([-3, 1, 0]),
    ]
    mesh = trimesh.util.concatenate(parts)
    faces = np.array(mesh.faces, np.int64)
    flipped = rng.random(len(faces)) < 0.5
    faces[flipped] = faces[flipped][:, ::-1]
    turned = orient(np.asarray(mesh.vertices), faces)
    assert turned is not None
    result = trimesh.Trimesh(mesh.vertices, turned, process=False)
    assert result.is_winding_consistent
    assert result.volume == pytest.approx(sum(part.volume for part in parts))
    assert all(part.volume > 0 for part in result.split())


def test_parts_that_share_a_vertex_are_each_turned_out() -> None:
    one, two = (
        trimesh.creation.box(bounds=[[0] * 3, [1] * 3]),
        trimesh.creation.box(bounds=[[1] * 3, [2] * 3]),
    )
    two.invert()
    both = trimesh.util.concatenate([one, two])
    vertices, faces = clean_soup(np.asarray(both.vertices), np.asarray(both.faces))
    assert len(vertices) == 15
    turned = orient(vertices, faces)
    assert turned is not None
    assert trimesh.Trimesh(vertices, turned, process=False).volume == pytest.approx(2)


def test_a_one_sided_surface_cannot_be_turned() -> None:
    """The projective plane on six vertices: every edge has two faces, and there is no inside."""
    faces = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5], [0, 5, 1]]
    faces += [[1, 2, 4], [2, 3, 5], [3, 4, 1], [4, 5, 2], [5, 1, 3]]
    faces = np.array(faces, np.int64)
    assert (edge_use(faces) == 2).all()
    assert orient(np.random.default_rng(0).normal(size=(6, 3)), faces) is None
