"""Convex solids against trimesh's hulls, closed forms and the parity of the union mesh."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

from preprocessing.occupancy_labels import label_mesh
from preprocessing.procedural.solids import (
    Scene,
    block,
    bounds_of,
    box,
    capsule,
    convex_hull,
    cylinder,
    ellipsoid,
    frustum,
    l_shape,
    placed,
    rested,
    ring,
    rod,
    rotation_about,
    rounded_box,
    union_mesh,
    union_occupancy,
    wedge,
)

CONVEX = {
    "box": box((0.1, -0.2, 0.3), (1.0, 0.5, 0.8)),
    "cylinder": cylinder(0.5, 1.2),
    "frustum": frustum(0.5, 0.2, 0.7, 10),
    "cone": frustum(0.5, 0.0, 0.7, 10),
    "ellipsoid": ellipsoid((0.3, 0.5, 0.2), 2),
    "wedge": wedge(0.4, 0.6, 0.3),
    "blunt wedge": wedge(0.4, 0.6, 0.3, 0.4),
    "rod": rod((0, 0, 0), (0.3, 0.7, -0.4), 0.1, 9),
    "capsule": capsule((0, 0, 0), (0.4, 0.1, 0.2), 0.15),
    "rounded box": rounded_box(0.5, 0.4, 0.2, 0.06),
    "random hull": convex_hull(np.random.default_rng(3).normal(size=(30, 3))),
}
UNIONS = {
    "ring": ring(0.5, 0.1),
    "L": l_shape(0.6, 0.5, 0.4, 0.1),
    "touching boxes": (box((0, 0, 0), (1, 1, 1)), box((1, 0, 0), (2, 1, 1)), box((0, 0, 1), (1, 1, 2))),
    "touching after a turn": placed(
        (box((0, 0, 0), (1, 1, 1)), box((1, 0, 0), (2, 1, 1))), rotation_about((1, 2, 3), 0.7)
    ),
    "overlapping": (cylinder(0.4, 1.0), box((-0.2, -0.9, 0.3), (0.2, 0.9, 0.5)), ellipsoid((0.5, 0.5, 0.5))),
}


def queries_around(solids, count, seed=0):
    low, high = bounds_of(solids)
    margin = 0.05 * (high - low)
    return np.random.default_rng(seed).uniform(low - margin, high + margin, (count, 3))


def distance_to_planes(solid, queries):
    return np.abs(queries @ solid.normals.T + solid.offsets).min(axis=1)


@pytest.mark.parametrize("name", CONVEX)
def test_half_spaces_equal_the_hull_of_the_vertices(name):
    solid = CONVEX[name]
    queries = queries_around((solid,), 4000)
    # Trimesh's hull of the vertices, tested by its own planes.
    hull = trimesh.convex.convex_hull(solid.vertices)
    sides = np.einsum("qfi,fi->qf", queries[:, None] - hull.triangles[:, 0], hull.face_normals)
    truth = (sides <= 0).all(axis=1)
    clear = distance_to_planes(solid, queries) > 1e-7
    assert np.array_equal(solid.contains(queries)[clear], truth[clear])
    assert 0 < truth.sum() < len(truth)


@pytest.mark.parametrize("name", CONVEX)
def test_faces_close_and_point_outwards(name):
    solid = CONVEX[name]
    mesh = trimesh.Trimesh(solid.vertices, solid.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(trimesh.convex.convex_hull(solid.vertices).volume, rel=1e-9)
    assert np.allclose(np.linalg.norm(solid.normals, axis=1), 1.0, atol=1e-12)
    # No vertex is outside a half-space by more than rounding.
    assert (solid.vertices @ solid.normals.T + solid.offsets).max() < 1e-9


@pytest.mark.parametrize("name", UNIONS)
def test_union_mesh_is_one_closed_surface_with_the_occupancy_of_the_solids(name):
    solids = UNIONS[name]
    vertices, faces = union_mesh(solids)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    # No sheet is left inside: overlap and contact are gone, so one body remains.
    assert mesh.body_count == 1
    queries = queries_around(solids, 20_000)
    labels = label_mesh(vertices, faces, queries)
    differs = np.flatnonzero(labels != union_occupancy(solids, queries))
    near = min((distance_to_planes(s, queries[differs]) for s in solids), key=lambda d: d.sum())
    assert len(differs) < 20 and (near < 1e-4).all()


def test_volumes_of_touching_boxes_add_up():
    vertices, faces = union_mesh(UNIONS["touching boxes"])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    # Solids grow by 2e-7 of the largest side before the union.
    assert mesh.volume == pytest.approx(3.0, abs=1e-5)
    assert mesh.area == pytest.approx(14.0, abs=1e-4)


def test_primitives_have_their_closed_form_volumes():
    def volume(solid):
        return trimesh.Trimesh(solid.vertices, solid.faces, process=False).volume

    polygon = 0.5 * 16 * np.sin(2 * np.pi / 16)
    assert volume(cylinder(0.5, 1.2)) == pytest.approx(polygon * 0.25 * 1.2)
    assert volume(frustum(0.5, 0.0, 0.9, 16)) == pytest.approx(polygon * 0.25 * 0.9 / 3)
    assert volume(wedge(0.4, 0.6, 0.3)) == pytest.approx(0.4 * 0.6 * 0.3 / 2)
    assert volume(block(1, 2, 3, 0.4, 0.6, 0.3)) == pytest.approx(0.4 * 0.6 * 0.3)
    assert 0.97 < volume(ellipsoid((0.3, 0.5, 0.2), 3)) / (4 / 3 * np.pi * 0.3 * 0.5 * 0.2) < 1.0


@settings(max_examples=25, deadline=None)
@given(seed=integers(0, 2**32 - 1), name=sampled_from(sorted(CONVEX)))
def test_moving_solid_and_query_together_changes_nothing(seed, name):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    if abs(np.linalg.det(matrix)) < 0.2:
        matrix = np.diag([-1.0, 2.0, 0.5])
    shift = rng.uniform(-100, 100, 3)
    solid = CONVEX[name]
    queries = queries_around((solid,), 500, seed)
    clear = distance_to_planes(solid, queries) > 1e-7
    moved = solid.transformed(matrix, shift)
    assert np.array_equal(moved.contains(queries @ matrix.T + shift)[clear], solid.contains(queries)[clear])
    assert trimesh.Trimesh(moved.vertices, moved.faces, process=False).volume > 0


@settings(max_examples=20, deadline=None)
@given(seed=integers(0, 2**32 - 1))
def test_the_grid_gives_the_brute_force_occupancy(seed):
    rng = np.random.default_rng(seed)
    solids = tuple(
        CONVEX[str(name)].transformed(
            rotation_about(rng.normal(size=3), rng.uniform(0, 6)) * rng.uniform(0.2, 2.0),
            rng.uniform(-3, 3, 3),
        )
        for name in rng.choice(sorted(CONVEX), 8)
    )
    queries = np.concatenate([queries_around(solids, 3000, seed), rng.uniform(-30, 30, (50, 3))])
    truth = np.zeros(len(queries), bool)
    for solid in solids:
        truth |= (queries @ solid.normals.T + solid.offsets <= 0).all(axis=1)
    assert np.array_equal(union_occupancy(solids, queries), truth)


def test_occupancy_takes_no_queries():
    assert union_occupancy(UNIONS["L"], np.empty((0, 3))).shape == (0,)


def test_rested_solids_touch_down_at_the_height():
    turned = rested((CONVEX["wedge"],), rotation_about((1, 1, 0), 0.4), 2.0, 3.0, 0.7, sink=0.002)
    assert bounds_of(turned)[0, 2] == pytest.approx(0.698, abs=1e-12)


def test_scene_keeps_its_mesh():
    solids = UNIONS["L"]
    scene = Scene(solids, "l", bounds_of(solids))
    assert scene.mesh()[0] is scene.mesh()[0]
    assert scene.occupancy(np.array([[-0.29, 0.0, 0.1], [0.2, 0.2, 0.1]])).tolist() == [True, False]
