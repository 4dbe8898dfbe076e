"""Occupancy of closed meshes of every kind against summed solid angles.

2,000 points a mesh by default; the environment variable TESSERA_LABEL_POINTS asks for more (100,000 take minutes).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import manifold3d
import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from preprocessing.meshes.files import read_mesh
from preprocessing.metrics import nearest_on_surface
from preprocessing.occupancy_labels import label_solid, unpaired_edges
from preprocessing.surface_sampling import sample_surface
from preprocessing.watertight.cleaning import clean_soup, orient
from tests.data_files import shared_data
from tests.references.winding_number import winding_numbers

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]

POINTS = int(os.environ.get("TESSERA_LABEL_POINTS", "2000"))
CLEAR = 1e-3  # of the cube: nearer to the surface, float32 rays and float64 angles may differ
LEAST_AGREEMENT = 0.999

AWS = [
    "Ball_01",
    "ChairA_01",
    "ChairD_01",
    "DeskPortraitD_01",
    "DeskPortraitD_03",
    "DeskPortraitD_04",
    "Dumbbell_01",
    "FitnessEquipment_01",
    "KitchenTable_01",
    "Pillow_01",
    "PortraitA_01",
    "PortraitA_02",
    "PortraitB_01",
    "PortraitB_02",
    "PortraitB_03",
    "PortraitC_01",
    "PortraitD_01",
    "PortraitD_02",
    "PortraitE_01",
    "PortraitE_02",
    "Trash_01",
]
KAYKIT = ("armchair", "lamp_standing", "lamp_table")
FILES = [f"meshes/objects_aws_house/{name}.ply" for name in AWS] + [
    f"meshes/objects_kaykit/{name}.ply" for name in KAYKIT
]


def arrays(mesh: trimesh.Trimesh) -> Mesh:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def closed_grid(surface: NDArray[np.float64]) -> Mesh:
    """The faces of a (N, K, 3) grid of points that closes in both directions, facing out."""
    rows, columns = surface.shape[:2]
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    corner = [
        ((i + di) % rows * columns + (j + dj) % columns).ravel()
        for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    faces = np.concatenate([np.stack([corner[0], corner[k], corner[k + 1]], axis=1) for k in (1, 2)])
    vertices = surface.reshape(-1, 3)
    turned = orient(vertices, faces)
    assert turned is not None
    return vertices, turned


def tube(curve: Callable[[NDArray[np.float64]], list[NDArray[np.float64]]], radius: float) -> Mesh:
    """A tube around a closed plane-like curve of period 2 pi."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    center = np.stack(curve(turn), axis=1)
    along = np.stack(curve(turn + 1e-4), axis=1) - np.stack(curve(turn - 1e-4), axis=1)
    across = np.cross(along, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upward = np.cross(across, along)
    upward /= np.linalg.norm(upward, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)[:, None]
    rings = np.cos(angle) * across[:, None] + np.sin(angle) * upward[:, None]
    return closed_grid(center[:, None] + radius * rings)


def superellipsoid(exponent: float, other: float) -> Mesh:
    ball = trimesh.creation.icosphere(3)
    x, y, z = np.abs(ball.vertices.T)
    level = ((x ** (2 / other) + y ** (2 / other)) ** (other / exponent) + z ** (2 / exponent)) ** (
        exponent / 2
    )
    return ball.vertices / level[:, None], np.asarray(ball.faces, np.int64)


def hull(seed: int) -> Mesh:
    points = np.random.default_rng(seed).normal(size=(20 * (seed + 1), 3))
    faces = ConvexHull(points).simplices.astype(np.int64)
    turned = orient(points, faces)
    assert turned is not None
    return points, turned


def combined(seed: int) -> Mesh:
    """Boxes, balls and cylinders in random places, united, one of them carved out."""
    rng = np.random.default_rng(seed)
    solids = [
        manifold3d.Manifold.cube(tuple(rng.uniform(0.3, 1, 3)), True),
        manifold3d.Manifold.sphere(rng.uniform(0.2, 0.6), 24),
        manifold3d.Manifold.cylinder(rng.uniform(0.5, 1.5), 0.3, 0.15, 20, True),
        manifold3d.Manifold.cube(tuple(rng.uniform(0.2, 0.6, 3)), True),
    ]
    placed = [
        solid.rotate(tuple(rng.uniform(0, 360, 3))).translate(tuple(rng.uniform(-0.35, 0.35, 3)))
        for solid in solids
    ]
    result = placed[0] + placed[1] + placed[2] - placed[3]
    mesh = result.to_mesh64()
    return np.array(mesh.vert_properties[:, :3], np.float64), np.array(mesh.tri_verts, np.int64)


def overlapping(seed: int) -> Mesh:
    """Closed parts that cross each other and are not united, with one inside another."""
    rng = np.random.default_rng(seed)
    parts = [
        trimesh.creation.icosphere(2, 0.5),
        trimesh.creation.icosphere(1, 0.2),
        trimesh.creation.box(rng.uniform(0.4, 1.2, 3)).apply_translation(rng.uniform(-0.5, 0.5, 3)),
        trimesh.creation.torus(0.6, 0.15, major_sections=24, minor_sections=10),
    ]
    return arrays(trimesh.util.concatenate(parts))


def hollow() -> Mesh:
    outer, inner = trimesh.creation.icosphere(3, 1.0), trimesh.creation.icosphere(2, 0.6)
    inner.invert()
    return arrays(trimesh.util.concatenate([outer, inner]))


PROCEDURAL: dict[str, Callable[[], Mesh]] = {
    "ball of 20": lambda: arrays(trimesh.creation.icosphere(0)),
    "ball of 320": lambda: arrays(trimesh.creation.icosphere(2)),
    "ball of 1280": lambda: arrays(trimesh.creation.icosphere(3)),
    "thick torus": lambda: arrays(trimesh.creation.torus(1, 0.6, major_sections=40, minor_sections=20)),
    "thin torus": lambda: arrays(trimesh.creation.torus(1, 0.05, major_sections=64, minor_sections=10)),
    "cube": lambda: arrays(trimesh.creation.box()),
    "plate": lambda: arrays(trimesh.creation.box((1, 0.7, 0.01))),
    "rod": lambda: arrays(trimesh.creation.box((0.02, 0.015, 1))),
    "pillow": lambda: superellipsoid(0.4, 0.6),
    "star": lambda: superellipsoid(2.4, 2.2),
    "barrel": lambda: superellipsoid(0.3, 1.0),
    "hollow ball": hollow,
    "figure eight": lambda: tube(lambda t: [np.sin(t), 0.5 * np.sin(2 * t), 0 * t], 0.15),
    "limacon": lambda: tube(
        lambda t: [(0.5 + np.cos(t)) * np.cos(t), (0.5 + np.cos(t)) * np.sin(t), 0.05 * np.sin(t)], 0.12
    ),
    "self-crossing ring": lambda: tube(lambda t: [np.cos(t), np.sin(t), 0.2 * np.sin(3 * t)], 0.7),
    **{f"hull {seed}": (lambda seed=seed: hull(seed)) for seed in range(4)},
    **{f"combined {seed}": (lambda seed=seed: combined(seed)) for seed in range(4)},
    **{f"overlapping {seed}": (lambda seed=seed: overlapping(seed)) for seed in range(3)},
}


def real(file: str) -> Mesh:
    vertices, faces = clean_soup(*(lambda mesh: (mesh.vertices, mesh.faces))(read_mesh(shared_data(file))))
    turned = orient(vertices, faces)
    assert turned is not None
    return vertices, turned


def check_labels(mesh: Mesh, record: Callable[[str, object], None]) -> None:
    """Labels of uniform and near points agree with winding numbers wherever the surface is not too near."""
    vertices, faces = mesh
    assert unpaired_edges(faces) == 0
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    vertices = (vertices - 0.5 * (low + high)) / (high - low).max()
    rng = np.random.default_rng(7)
    near, _ = sample_surface(vertices, faces, POINTS // 2, rng)
    near = near + rng.normal(0, 0.02, near.shape)
    queries = np.concatenate([rng.uniform(-0.55, 0.55, (POINTS - len(near), 3)), near])
    queries = queries[nearest_on_surface(vertices, faces, queries)[0] > CLEAR]
    winding = winding_numbers(vertices, faces, queries)
    assert np.abs(winding - winding.round()).max() < 1e-6
    truth = winding.round() > 0
    assert 0 < truth.sum() < len(truth)
    agreement = (label_solid(vertices, faces, queries) == truth).mean()
    record("points", len(queries))
    record("agreement", float(agreement))
    print(f"{len(faces):6} faces {len(queries):7} points {100 * agreement:.4f}%")
    assert agreement >= LEAST_AGREEMENT


@pytest.mark.parametrize("name", PROCEDURAL)
def test_labels_of_made_meshes_are_those_of_winding_numbers(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    check_labels(PROCEDURAL[name](), record_property)


@pytest.mark.parametrize("file", FILES)
def test_labels_of_real_meshes_are_those_of_winding_numbers(
    file: str, record_property: Callable[[str, object], None]
) -> None:
    check_labels(real(file), record_property)


def test_fifty_meshes_are_compared() -> None:
    assert len(PROCEDURAL) + len(FILES) == 50


def test_solid_angles_of_a_cube_are_whole_inside_out_and_on_paper() -> None:
    """Inside 1, outside 0, twice the cube 2, inside out -1, and one face seen from the center a sixth."""
    vertices, faces = arrays(trimesh.creation.box())
    queries = np.array([[0.0, 0, 0], [0.4, -0.3, 0.2], [0.7, 0, 0], [5, 5, 5]])
    np.testing.assert_allclose(winding_numbers(vertices, faces, queries), [1, 1, 0, 0], atol=1e-12)
    twice = np.concatenate([faces, faces])
    np.testing.assert_allclose(winding_numbers(vertices, twice, queries), [2, 2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(winding_numbers(vertices, faces[:, ::-1], queries)[0], -1)
    top = (vertices[faces][..., 2] > 0).all(axis=1)
    np.testing.assert_allclose(winding_numbers(vertices, faces[top], queries)[0], 1 / 6)
