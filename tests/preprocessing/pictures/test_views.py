"""Pictures against closed forms: a sphere's depth and shade, and pixels led back to the surface."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from preprocessing.dataset import Views
from preprocessing.metrics import nearest_on_surface
from preprocessing.pictures import views
from preprocessing.pictures.camera import Up
from preprocessing.pictures.views import cameras_around, render_views

SIZE = 48
RADIUS = 0.4


def arrays(mesh: trimesh.Trimesh) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def render(mesh: trimesh.Trimesh, count: int = 4, seed: int = 0, up: str = "z", size: int = SIZE) -> Views:
    return render_views(*arrays(mesh), count, size, np.random.default_rng(seed), up)  # type: ignore[arg-type]


def pixel_rays(matrix: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """(size, size, 3) directions in the camera, z = 1, through the pixels' centers."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    x = (columns - matrix[0, 2]) / matrix[0, 0]
    y = (rows - matrix[1, 2]) / matrix[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def sphere_depth(pose: NDArray[np.float64], rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the ball around the origin: the smaller root of |depth * ray - center| = radius; NaN where missed."""
    center = pose[:, 3]  # of the world, in the camera
    a, b, c = (rays**2).sum(-1), rays @ center, center @ center - RADIUS**2
    with np.errstate(invalid="ignore"):
        return (b - np.sqrt(b * b - a * c)) / a


def test_depth_and_shade_of_a_ball_are_the_closed_form() -> None:
    result = render(trimesh.creation.icosphere(6, RADIUS))
    light = views.LIGHT * [1, -1, -1]  # the camera's y points down and its z away from the viewer
    for rgb, depth, pose, matrix in zip(
        result.rgb, result.depth, result.extrinsics, result.intrinsics, strict=True
    ):
        rays = pixel_rays(matrix, SIZE)
        expected = sphere_depth(pose, rays)
        normals = (rays * expected[..., None] - pose[:, 3]) / RADIUS
        clear = -(normals * rays).sum(-1) / np.linalg.norm(rays, axis=-1) > 0.3  # away from the rim
        assert clear.sum() > 200
        np.testing.assert_allclose(depth[clear], expected[clear], atol=5e-4)
        shade = 255 * views.SURFACE * (views.AMBIENT + (1 - views.AMBIENT) * np.maximum(normals @ light, 0))
        np.testing.assert_allclose(rgb[clear][:, 0], shade[clear], atol=5)  # mean of four rays, and facets
        missed = np.isnan(expected)
        assert (depth[missed] == 0).all()
        assert (rgb == rgb[..., :1]).all()


def test_what_no_ray_hits_is_white_without_depth() -> None:
    result = render(trimesh.creation.icosphere(3, 0.1))
    background = result.depth == 0
    assert 0.9 < background.mean() < 1
    corners = result.rgb[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == views.BACKGROUND).all()
    beside = background & (np.roll(background, 1, axis=1) & np.roll(background, -1, axis=1))
    beside &= np.roll(background, 1, axis=2) & np.roll(background, -1, axis=2)
    assert (result.rgb[beside] == views.BACKGROUND).all()
    assert (result.rgb[~background].min(axis=-1) < views.BACKGROUND).all()


def test_every_pixel_leads_back_to_the_surface() -> None:
    mesh = trimesh.creation.torus(0.35, 0.14).apply_translation([0.01, 0.0, -0.1])
    result = render(mesh, count=5, seed=3)
    for depth, pose, matrix in zip(result.depth, result.extrinsics, result.intrinsics, strict=True):
        hit = depth > 0
        local = (pixel_rays(matrix, SIZE) * depth[..., None])[hit]
        world = (local - pose[:, 3]) @ pose[:, :3]
        assert nearest_on_surface(*arrays(mesh), world)[0].max() < 1e-5


def test_a_point_lands_on_the_pixel_whose_depth_it_has() -> None:
    mesh = trimesh.creation.icosphere(5, RADIUS)
    points = trimesh.sample.sample_surface(mesh, 4000, seed=0)[0]
    result = render(mesh, count=6, seed=1, size=64)
    for depth, pose, matrix in zip(result.depth, result.extrinsics, result.intrinsics, strict=True):
        local = points @ pose[:, :3].T + pose[:, 3]
        away = (local - pose[:, 3]) / RADIUS
        facing = -(away * local).sum(axis=1) / np.linalg.norm(local, axis=1) > 0.6
        pixel = local[facing] @ matrix.T
        columns, rows = np.floor(pixel[:, :2] / pixel[:, 2:]).astype(int).T
        # A pixel is about 0.03 wide at this distance and the surface at most 53 degrees aslant.
        assert np.abs(depth[rows, columns] - local[facing, 2]).max() < 0.03
        assert np.abs(depth[rows, columns] - local[facing, 2]).mean() < 0.008


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_whole_cube_is_in_every_picture(up: Up) -> None:
    cameras = cameras_around(400, np.random.default_rng(0), up)
    poses = np.stack([camera.pose() for camera in cameras])
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    local = np.einsum("vij,cj->vci", poses[:, :, :3], corners) + poses[:, None, :, 3]
    pixel = local @ cameras[0].pinhole(SIZE, SIZE).T
    pixel = pixel[..., :2] / pixel[..., 2:]
    assert (local[..., 2] > 0).all()
    assert pixel.min() >= 0
    assert pixel.max() <= SIZE
    assert (np.ptp(pixel, axis=1) > 0.5 * SIZE).all()  # and fills most of it


@pytest.mark.parametrize("up", ["y", "z"])
def test_cameras_look_at_the_center_from_above(up: Up) -> None:
    poses = np.stack([camera.pose() for camera in cameras_around(24, np.random.default_rng(2), up)])
    rotation, translation = poses[:, :, :3], poses[:, :, 3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (24, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    np.testing.assert_allclose(translation[:, :2], 0, atol=1e-12)
    places = -np.einsum("vji,vj->vi", rotation, translation)
    axis = "xyz".index(up)
    elevation = np.degrees(np.arcsin(places[:, axis] / np.linalg.norm(places, axis=1)))
    assert elevation.min() >= 25
    assert elevation.max() <= 30
    assert (rotation[:, 1, axis] < 0).all()  # up in the world is up in the picture, whose y points down
    np.testing.assert_allclose(rotation[:, 0, axis], 0, atol=1e-12)
    flat = np.delete(places, axis, axis=1)
    azimuth = np.unwrap(np.arctan2(flat[:, 1], flat[:, 0]))
    np.testing.assert_allclose(np.abs(np.diff(azimuth)), 2 * np.pi / 24)


def test_y_up_and_z_up_agree_by_a_turn() -> None:
    mesh = trimesh.util.concatenate(
        [
            trimesh.creation.box((0.9, 0.4, 0.2)),
            trimesh.creation.icosphere(3, 0.2).apply_translation([0.2, 0.1, 0.25]),
        ]
    )
    turned = mesh.copy()
    turned.vertices = mesh.vertices[:, [1, 2, 0]]  # z becomes y
    upright, lying = render(mesh, up="z"), render(turned, up="y")
    assert (upright.depth > 0).any()
    # Rounding may differ where a ray meets a silhouette or an edge.
    assert (np.abs(upright.depth - lying.depth) > 1e-5).mean() < 2e-3
    assert (np.abs(upright.rgb.astype(int) - lying.rgb) > 1).mean() < 2e-3
    np.testing.assert_allclose(
        upright.extrinsics[:, :, :3][:, :, [1, 2, 0]], lying.extrinsics[:, :, :3], atol=1e-12
    )


def test_pictures_do_not_depend_on_the_faces_sides() -> None:
    mesh = trimesh.creation.torus(0.35, 0.12)
    inverted = mesh.copy()
    inverted.invert()
    one, two = render(mesh), render(inverted)
    assert (np.abs(one.rgb.astype(int) - two.rgb) > 1).mean() < 1e-3
    np.testing.assert_allclose(one.depth, two.depth, atol=1e-5)


def test_shapes_and_types_are_those_of_the_store() -> None:
    result = render(trimesh.creation.box(), count=3, size=20)
    assert (result.rgb.shape, result.rgb.dtype) == ((3, 20, 20, 3), np.uint8)
    assert (result.depth.shape, result.depth.dtype) == ((3, 20, 20), np.float32)
    assert (result.extrinsics.shape, result.extrinsics.dtype) == ((3, 3, 4), np.float64)
    assert (result.intrinsics.shape, result.intrinsics.dtype) == ((3, 3, 3), np.float64)
    assert result.rgb.tobytes() == render(trimesh.creation.box(), count=3, size=20).rgb.tobytes()
    assert result.rgb.tobytes() != render(trimesh.creation.box(), count=3, size=20, seed=1).rgb.tobytes()
