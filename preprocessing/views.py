"""Pictures of a shape, still or moving, from cameras around it, by ray casting: no graphics card, no OpenGL."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import Views
from preprocessing.native import load_open3d, ray_threads

FIELD_OF_VIEW_DEG = 49.1  # as in the renderings of Choy et al. 2016 (3D-R2N2)
DISTANCE = 2.1  # of the camera from the centre: the ball around the unit cube stays in the picture
SUPERSAMPLING = 2
LIGHT = np.array([0.4, 0.5, 0.76])  # in the camera's frame: right, up and behind the viewer
AMBIENT = 0.35
SURFACE = 0.82
BACKGROUND = 255


def camera_poses(count: int, rng: np.random.Generator, up: Literal["y", "z"] = "z") -> NDArray[np.float64]:
    """(count, 3, 4) matrices from the unit cube to cameras that look at its centre.

    Azimuths are evenly spread from a random start, elevations drawn from 25 to 30 degrees, as Choy et al. 2016 do.
    In the camera x goes right, y down and z forward.
    """
    start = rng.uniform(0, 2 * np.pi)
    azimuth = start + 2 * np.pi * np.arange(count) / count
    elevation = np.radians(rng.uniform(25, 30, count))
    distance = DISTANCE * rng.uniform(1.0, 1.15, count)
    outward = np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )
    upward = np.array([0.0, 0.0, 1.0])
    if up == "y":
        outward, upward = outward[:, [1, 2, 0]], upward[[1, 2, 0]]  # (x, y, z) turned to (y, z, x)
    forward = -outward
    right = np.cross(forward, upward)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
    translation = -np.einsum("vij,vj->vi", rotation, outward * distance[:, None])
    return np.concatenate([rotation, translation[:, :, None]], axis=2)


def intrinsics(size: int) -> NDArray[np.float64]:
    """(3, 3) pinhole matrix of a square picture in pixels; pixel (0, 0) is centred at (0.5, 0.5)."""
    focal = 0.5 * size / np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def render_views(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    count: int,
    size: int,
    rng: np.random.Generator,
    up: Literal["y", "z"] = "z",
) -> Views:
    """Depth and shaded colour of a mesh in the unit cube, or of a moving one from cameras that stand still.

    Args:
        vertices: ([T,] V, 3) in the unit cube centred at 0, at each time of a sequence.
        faces: (F, 3), of all times.
        count: cameras around it.
        size: width and height of a picture in pixels.
        rng: of the cameras' places.
        up: the axis that points up.

    Colour is the mean of four rays a pixel, depth that of the ray through the pixel's centre.
    """
    poses, pinhole = camera_poses(count, rng, up), intrinsics(size)
    moments = vertices.reshape(-1, *vertices.shape[-2:])
    rgb = np.empty((len(moments), count, size, size, 3), np.uint8)
    depth = np.empty((len(moments), count, size, size), np.float32)
    for moment, places in enumerate(moments):
        scene = _Scene(places, faces)
        for view, pose in enumerate(poses):
            rgb[moment, view], depth[moment, view] = scene.picture(pose, pinhole, size)
    times = vertices.shape[:-2]
    return Views(
        rgb.reshape(*times, *rgb.shape[1:]),
        depth.reshape(*times, *depth.shape[1:]),
        poses,
        np.broadcast_to(pinhole, (count, 3, 3)).copy(),
    )


class _Scene:
    """A mesh that rays are cast at."""

    def __init__(self, vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> None:
        self._o3d = load_open3d()
        self._scene = self._o3d.t.geometry.RaycastingScene(nthreads=ray_threads())
        self._scene.add_triangles(
            self._o3d.core.Tensor(vertices.astype(np.float32)),
            self._o3d.core.Tensor(faces.astype(np.uint32)),
        )

    def picture(
        self, pose: NDArray[np.float64], pinhole: NDArray[np.float64], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colour (size, size, 3) and depth (size, size) from a (3, 4) pose and a (3, 3) matrix."""
        depth, _ = self._cast(pose, pinhole, size, 1)
        _, light = self._cast(pose, pinhole, size, SUPERSAMPLING)
        shade = np.where(light < 0, BACKGROUND, 255 * SURFACE * (AMBIENT + (1 - AMBIENT) * light))
        mean = shade.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
        grey = np.rint(mean)[..., None].astype(np.uint8)
        return np.broadcast_to(grey, (size, size, 3)), depth.reshape(size, size)

    def _cast(
        self, pose: NDArray[np.float64], pinhole: NDArray[np.float64], size: int, rays_across: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth along the axis (0 for none) and cosine to the light (-1), of `rays_across` squared rays a pixel."""
        place = (np.arange(size * rays_across) + 0.5) / rays_across
        columns, rows = np.meshgrid(place, place)
        local = (
            np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3) @ np.linalg.inv(pinhole).T
        )
        rotation, translation = pose[:, :3], pose[:, 3]
        directions = local @ rotation  # the camera's z is 1, so the distance along a ray is the depth
        eye = np.broadcast_to(-rotation.T @ translation, directions.shape)
        rays = np.concatenate([eye, directions], axis=1).astype(np.float32)
        hits = self._scene.cast_rays(self._o3d.core.Tensor(rays), nthreads=ray_threads())
        distance = hits["t_hit"].numpy()
        is_hit = np.isfinite(distance)
        normals = hits["primitive_normals"].numpy() @ rotation.T.astype(np.float32)
        normals *= np.where((normals * local).sum(axis=1) > 0, -1, 1)[:, None]  # lit on the side that is seen
        light = np.maximum(normals @ (LIGHT * [1, -1, -1]).astype(np.float32), 0)
        return (
            np.where(is_hit, distance, 0).astype(np.float32),
            np.where(is_hit, light, -1).astype(np.float32),
        )
