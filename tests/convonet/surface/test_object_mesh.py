"""Meshes of analytic fields: on the exact surface up to linear interpolation, closed, with the exact normals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from convonet.surface.object_mesh import ExtractionConfig, ObjectMesh, extract_mesh, refine

SHARPNESS = 20.0  # logits per unit of length
CONFIG = ExtractionConfig()
DENSE = ExtractionConfig(resolution=128, upsampling_steps=0)


def logits_of(distance, threshold=CONFIG.threshold):
    """A field whose level set of `threshold` is where the signed distance (positive inside) is 0."""
    shift = math.log(threshold / (1 - threshold))
    return lambda queries: SHARPNESS * distance(queries) + shift


def ball(radius, center=(0.0, 0.0, 0.0)):
    return lambda queries: radius - torch.linalg.vector_norm(queries - torch.tensor(center), dim=1)


def two_balls(queries):
    return torch.maximum(ball(0.2, (-0.22, 0.05, 0.0))(queries), ball(0.15, (0.21, 0.0, 0.1))(queries))


def torus(queries, major=0.31, minor=0.13):
    ring = torch.linalg.vector_norm(queries[:, :2], dim=1) - major
    return minor - torch.sqrt(ring**2 + queries[:, 2] ** 2)


def gyroid(queries, wave=4 * math.pi):
    """Not a distance, and reaching all six faces of the padded cube."""
    x, y, z = (wave * queries[:, axis] for axis in range(3))
    return torch.sin(x) * torch.cos(y) + torch.sin(y) * torch.cos(z) + torch.sin(z) * torch.cos(x)


SHAPES = {"ball": ball(0.4), "two balls": two_balls, "torus": torus}
# Largest second derivative of the distance within a cell of the surface: 1 / the smaller radius of curvature.
CURVATURES = {"ball": 1 / 0.38, "two balls": 1 / 0.13, "torus": 1 / 0.11}
EULER_NUMBERS = {"ball": 2, "two balls": 4, "torus": 0}


def evaluate(function, points):
    return function(torch.from_numpy(points.astype(np.float32))).numpy().astype(np.float64)


def as_trimesh(mesh: ObjectMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


class Recorded:
    """A field that remembers its batches."""

    def __init__(self, inner):
        self.inner, self.batches = inner, []

    def __call__(self, queries):
        self.batches.append(queries.detach().numpy().copy())
        return self.inner(queries)


@pytest.mark.parametrize(
    ("name", "threshold"), [("ball", 0.2), ("two balls", 0.2), ("torus", 0.2), ("torus", 0.5)]
)
def test_vertices_lie_on_the_surface_up_to_linear_interpolation(name, threshold):
    config = replace(CONFIG, threshold=threshold)
    mesh = extract_mesh(logits_of(SHAPES[name], threshold), config)
    spacing = 1.1 / 128
    # Linear interpolation of f over h errs by at most h^2 / 8 max |f''|, and f is the distance.
    bound = spacing**2 / 8 * CURVATURES[name]
    assert bound < 1e-4
    assert np.abs(evaluate(SHAPES[name], mesh.vertices)).max() < bound + 1e-6  # and float32
    check = as_trimesh(mesh)
    assert check.is_watertight
    assert check.is_winding_consistent
    assert check.euler_number == EULER_NUMBERS[name]
    assert check.volume > 0


def test_volume_and_area_are_those_of_the_torus():
    check = as_trimesh(extract_mesh(logits_of(torus), CONFIG))
    assert check.volume == pytest.approx(2 * math.pi**2 * 0.31 * 0.13**2, rel=2e-3)
    assert check.area == pytest.approx(4 * math.pi**2 * 0.31 * 0.13, rel=2e-3)


def test_a_surface_that_leaves_the_cube_is_closed_at_its_faces():
    mesh = extract_mesh(logits_of(gyroid), replace(CONFIG, upsampling_steps=1))
    half, spacing = 0.55, 1.1 / 64
    check = as_trimesh(mesh)
    assert check.is_watertight
    assert check.is_winding_consistent
    np.testing.assert_allclose(check.bounds, [[-half] * 3, [half] * 3], atol=1.1e-3 * spacing)
    is_closing = np.abs(mesh.vertices).max(axis=1) > half + 1e-6
    assert 0.02 < is_closing.mean() < 0.5
    # |second derivative along an axis| <= sqrt(2) wave^2, so this bounds the value left by interpolation.
    bound = math.sqrt(2) * (4 * math.pi) ** 2 * spacing**2 / 8
    assert np.abs(evaluate(gyroid, mesh.vertices[~is_closing])).max() < bound + 1e-6
    assert check.volume == pytest.approx(1.1**3 * inside_share(gyroid), rel=3e-3)
    faces = np.argmax(np.abs(mesh.vertices[is_closing]), axis=1)
    outward = mesh.normals[is_closing][np.arange(is_closing.sum()), faces]
    signs = np.sign(mesh.vertices[is_closing][np.arange(is_closing.sum()), faces])
    assert ((outward * signs) > 0.3).mean() > 0.99


def inside_share(function):
    """Share of the padded cube that is inside, by a million random points: standard error 0.0005."""
    points = np.random.default_rng(0).uniform(-0.55, 0.55, (1_000_000, 3))
    return float((evaluate(function, points) > 0).mean())


def test_normals_are_those_of_the_closed_form():
    mesh = extract_mesh(logits_of(torus), CONFIG)
    assert mesh.normals.dtype == np.float32
    planar = mesh.vertices * (1, 1, 0)
    center_line = 0.31 * planar / np.linalg.norm(planar, axis=1, keepdims=True)
    exact = mesh.vertices - center_line
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.linalg.norm(mesh.normals - exact, axis=1).max() < 1e-4
    mesh = extract_mesh(logits_of(ball(0.4)), CONFIG)
    exact = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert np.linalg.norm(mesh.normals - exact, axis=1).max() < 1e-4


def test_a_flat_field_has_the_normals_of_the_faces():
    def step(queries):  # the gradient is 0 wherever it is defined
        return torch.where(queries[:, 2] + 0 * queries.sum(1) < 0.1, 5.0, -5.0) + 0 * queries.sum(1)

    mesh = extract_mesh(step, replace(CONFIG, resolution=8, upsampling_steps=1))
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    top = (np.abs(mesh.vertices[:, :2]).max(axis=1) < 0.4) & (mesh.vertices[:, 2] > 0)
    assert top.any()
    np.testing.assert_allclose(mesh.normals[top], np.tile([0, 0, 1], (top.sum(), 1)), atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_empty_field_gives_an_empty_mesh(steps):
    config = replace(CONFIG, resolution=8, upsampling_steps=steps, refinement_steps=2)
    mesh = extract_mesh(lambda queries: -9 + 0 * queries.sum(1), config)
    assert mesh.vertices.shape == mesh.faces.shape == mesh.normals.shape == (0, 3)
    assert (mesh.vertices.dtype, mesh.faces.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("padding", [0.0, 0.1])
def test_a_full_field_gives_the_padded_cube(steps, padding):
    config = replace(CONFIG, resolution=8, upsampling_steps=steps, padding=padding, refinement_steps=3)
    mesh = extract_mesh(lambda queries: 9 + 0 * queries.sum(1), config)
    check = as_trimesh(mesh)
    assert check.is_watertight
    assert check.euler_number == 2
    assert check.volume == pytest.approx((1 + padding) ** 3, rel=2e-2)  # its edges are bevelled by a cell
    reach = 0.5 * (1 + padding)
    np.testing.assert_allclose(check.bounds, [[-reach] * 3, [reach] * 3], atol=2e-3 * config.lattice.spacing)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["two balls", "torus"])
def test_coarse_to_fine_gives_what_the_dense_lattice_gives(name):
    field = logits_of(SHAPES[name])
    counted = Recorded(field)
    sparse, dense = extract_mesh(counted, CONFIG), extract_mesh(field, DENSE)
    np.testing.assert_array_equal(sparse.faces, dense.faces)
    np.testing.assert_allclose(sparse.vertices, dense.vertices, atol=1e-6)
    assert sum(map(len, counted.batches)) - len(sparse.vertices) < 0.2 * 129**3


@pytest.mark.parametrize("name", SHAPES)
def test_the_mesh_is_that_of_brute_force_marching_cubes(name):
    mesh = extract_mesh(logits_of(SHAPES[name]), CONFIG)
    axis = np.linspace(-0.55, 0.55, 129)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    values = evaluate(SHAPES[name], grid).reshape(129, 129, 129)
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=[1.1 / 128] * 3)
    vertices = vertices.astype(np.float64) - 0.55
    # Ours keep 1/1000 of a cell's distance from lattice points.
    assert cKDTree(vertices).query(mesh.vertices)[0].max() < 2e-5
    assert cKDTree(mesh.vertices).query(vertices)[0].max() < 2e-5
    reference = trimesh.Trimesh(vertices, faces, process=False)
    assert as_trimesh(mesh).volume == pytest.approx(abs(reference.volume), rel=1e-4)
    assert as_trimesh(mesh).area == pytest.approx(reference.area, rel=1e-3)


def test_the_field_is_asked_within_the_padded_cube_in_batches_and_once():
    counted = Recorded(logits_of(torus))
    mesh = extract_mesh(counted, replace(CONFIG, queries_per_batch=5000))
    assert max(map(len, counted.batches)) <= 5000
    asked = np.concatenate(counted.batches)
    assert np.abs(asked).max() <= np.float32(0.55)
    samples = asked[: len(asked) - len(mesh.vertices)]  # the normals come last
    assert len(np.unique(np.round((samples + 0.55) / 1.1 * 128).astype(int), axis=0)) == len(samples)


@pytest.mark.parametrize("batch", [7_777, 100_000_000])
def test_the_batch_size_does_not_change_the_mesh(batch):
    config = replace(CONFIG, resolution=16, upsampling_steps=1)
    usual = extract_mesh(logits_of(torus), config)
    other = extract_mesh(logits_of(torus), replace(config, queries_per_batch=batch))
    np.testing.assert_array_equal(usual.faces, other.faces)
    np.testing.assert_allclose(usual.vertices, other.vertices, atol=1e-6)
    np.testing.assert_allclose(usual.normals, other.normals, atol=1e-5)
    refined = [
        refine(usual, logits_of(torus), 3, replace(config, queries_per_batch=n)) for n in (batch, 10**5)
    ]
    assert np.abs(refined[0].vertices - usual.vertices).mean() > 1e-4
    np.testing.assert_allclose(refined[0].vertices, refined[1].vertices, atol=1e-6)


def curved(queries):
    """A ball whose logits are exponential across the surface: linear interpolation puts it far off."""
    return 3 * (torch.exp(40 * ball(0.35)(queries)) - 1) + math.log(0.25)


def surface_error(mesh: ObjectMesh) -> float:
    """Mean distance of 20,000 points on the faces from the sphere."""
    points, _ = trimesh.sample.sample_surface(as_trimesh(mesh), 20_000, seed=0)
    return float(np.abs(np.linalg.norm(points, axis=1) - 0.35).mean())


def test_refinement_moves_a_wrongly_interpolated_surface_to_the_level_set():
    config = ExtractionConfig(resolution=16, upsampling_steps=0)
    rough = extract_mesh(curved, config)
    fine = extract_mesh(curved, replace(config, refinement_steps=100))
    assert surface_error(rough) > 4e-3
    assert surface_error(fine) < 0.25 * surface_error(rough)
    np.testing.assert_array_equal(fine.faces, rough.faces)
    assert as_trimesh(fine).is_watertight
    exact = fine.vertices / np.linalg.norm(fine.vertices, axis=1, keepdims=True)
    assert np.linalg.norm(fine.normals - exact, axis=1).max() < 1e-4

    def misalignment(mesh):
        check = as_trimesh(mesh)
        radial = check.triangles_center / np.linalg.norm(check.triangles_center, axis=1, keepdims=True)
        return np.average(1 - (check.face_normals * radial).sum(axis=1), weights=check.area_faces)

    assert misalignment(fine) < misalignment(rough)


def test_refinement_is_repeatable_and_leaves_the_closing_and_the_network_alone():
    bias = torch.nn.Parameter(torch.tensor(0.0))

    def field(queries):
        return logits_of(gyroid)(queries) + bias

    config = ExtractionConfig(resolution=16, upsampling_steps=0)
    mesh = extract_mesh(field, config)
    once, again = (refine(mesh, field, 5, config, seed=3) for _ in range(2))
    np.testing.assert_array_equal(once.vertices, again.vertices)
    is_closing = np.abs(mesh.vertices).max(axis=1) > 0.55 + 1e-6
    np.testing.assert_array_equal(once.vertices[is_closing], mesh.vertices[is_closing])
    moved = np.abs(once.vertices - mesh.vertices)[~is_closing].max(axis=1)
    assert (moved > 0).mean() > 0.95
    assert bias.grad is None
    assert as_trimesh(once).is_watertight
    assert not np.array_equal(refine(mesh, field, 5, config, seed=4).vertices, once.vertices)


def test_a_field_that_is_not_finite_is_refused_with_the_place():
    def broken(queries):
        return torch.where(queries[:, 0] > 0.3, torch.nan, 1.0)

    for steps in (0, 1):
        with pytest.raises(ValueError, match=r"not finite at \(0\.4"):
            extract_mesh(broken, ExtractionConfig(resolution=8, upsampling_steps=steps))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"resolution": 0},
        {"upsampling_steps": -1},
        {"refinement_steps": -1},
        {"queries_per_batch": 0},
        {"padding": -1.0},
        {"padding": math.nan},
    ],
)
def test_a_configuration_without_meaning_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExtractionConfig(**wrong)
