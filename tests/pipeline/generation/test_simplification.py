"""Simplified meshes have the faces asked for, stay closed, and stay close."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from convonet.surface.marching_cubes import extract_blocks
from pipeline.generation.simplification import simplify
from preprocessing.meshes.checks import check_mesh
from tests.references.dense_marching_cubes import grid_points
from tests.references.fields import box, gyroid, spheres, waves


def closed_mesh(field, size):
    """Vertices and faces of a field in a box of `size` cells, closed at its border as outside."""
    points = grid_points(np.full(3, -1), np.full(3, size + 2))
    values = field(points)
    values[((points < 0) | (points > size)).any(axis=1)] = -1e6
    surface = extract_blocks(np.full((1, 3), -1), values.reshape(1, *[size + 3] * 3))
    return surface.positions, surface.indexed_faces()


def test_a_torus_keeps_its_shape_with_a_tenth_of_its_faces():
    torus = trimesh.creation.torus(
        major_radius=0.31, minor_radius=0.13, major_sections=160, minor_sections=80
    )
    vertices, faces = simplify(torus.vertices, torus.faces, len(torus.faces) // 10)
    check = check_mesh(vertices, faces)
    assert check.is_clean
    assert check.faces == len(torus.faces) // 10
    assert check.euler_number == 0
    assert check.volume == pytest.approx(torus.volume, rel=0.01)
    ring = np.linalg.norm(vertices[:, :2], axis=1) - 0.31
    distance = np.abs(np.hypot(ring, vertices[:, 2]) - 0.13)
    # 2,560 faces of equal area have sides of 0.038: chords lie 0.038^2 / 8 / 0.13 = 0.0014 below the surface.
    assert distance.max() < 2 * 0.0014
    assert (vertices.dtype, faces.dtype) == (np.float64, np.int64)


def test_flat_faces_are_simplified_without_loss():
    vertices, faces = closed_mesh(box((3.3, 3.3, 3.3), (20.2, 14.7, 18.1)), 24)
    fewer_vertices, fewer = simplify(vertices, faces, 100)
    assert len(fewer) <= 100
    check = check_mesh(fewer_vertices, fewer)
    assert check.is_watertight
    assert check.volume == pytest.approx(check_mesh(vertices, faces).volume, rel=1e-3)


@pytest.mark.parametrize("share", [2, 10, 100_000])
@pytest.mark.parametrize("seed", range(6))
def test_any_topology_stays_watertight(seed, share):
    vertices, faces = closed_mesh(waves(seed, 3.0 + seed), 16)
    assert check_mesh(vertices, faces).is_watertight
    wanted = max(4, len(faces) // share)
    check = check_mesh(*simplify(vertices, faces, wanted))
    assert check.is_watertight
    assert check.faces < len(faces)
    if share == 2:
        assert wanted - 2 <= check.faces <= wanted


def test_handles_and_parts_survive():
    for field in (gyroid(12), spheres([(6, 8, 8), (15, 8, 8)], [4, 3])):
        vertices, faces = closed_mesh(field, 20)
        before, after = (
            check_mesh(vertices, faces),
            check_mesh(*simplify(vertices, faces, len(faces) // 4)),
        )
        assert (after.euler_number, after.components) == (before.euler_number, before.components)


def test_what_needs_no_simplification_is_returned_as_it_is():
    cube = trimesh.creation.box()
    vertices, faces = np.array(cube.vertices), np.array(cube.faces, np.int64)
    for most in (12, 1000):
        kept = simplify(vertices, faces, most)
        assert kept[0] is vertices
        assert kept[1] is faces
    empty = simplify(np.zeros((0, 3)), np.zeros((0, 3), np.int64), 10)
    assert [part.shape for part in empty] == [(0, 3), (0, 3)]


def test_an_open_mesh_may_be_simplified_too():
    sheet = trimesh.creation.icosphere(subdivisions=3)
    upper = np.array(sheet.faces)[sheet.triangles_center[:, 2] > 0]
    vertices, faces = simplify(np.array(sheet.vertices), upper, 200)
    assert 4 < len(faces) <= 200
    assert check_mesh(vertices, faces).boundary_edges > 0


def test_fewer_faces_than_a_tetrahedron_are_refused():
    cube = trimesh.creation.box()
    with pytest.raises(ValueError, match="at least 4"):
        simplify(np.array(cube.vertices), np.array(cube.faces, np.int64), 3)
