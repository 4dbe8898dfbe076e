"""Pictures of a shape, still or moving, from cameras around it, by ray casting: no graphics card, no OpenGL."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import Views
from preprocessing.native import ray_threads, ray_tree, tensor
from preprocessing.pictures.camera import Camera, Up, direction

FIELD_OF_VIEW_DEG = 49.1  # as in the renderings of Choy et al. 2016 (3D-R2N2)
DISTANCE = 2.1  # of the camera from the center: the ball around the unit cube stays in the picture
SUPERSAMPLING = 2
LIGHT = np.array([0.4, 0.5, 0.76])  # in the camera's frame: right, up and behind the viewer
AMBIENT = 0.35
SURFACE = 0.82
BACKGROUND = 255


def cameras_around(count: int, rng: np.random.Generator, up: Up = "z") -> list[Camera]:
    """Cameras that look at the center of the unit cube.

    Azimuths are evenly spread from a random start, elevations drawn from 25 to 30 degrees, as Choy et al. 2016 do.
    """
    azimuths = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
    elevations = np.radians(rng.uniform(25, 30, count))
    distances = DISTANCE * rng.uniform(1.0, 1.15, count)
    return [
        Camera(distance * direction(azimuth, elevation, up), np.zeros(3), FIELD_OF_VIEW_DEG, up=up)
        for azimuth, elevation, distance in zip(azimuths, elevations, distances, strict=True)
    ]


def render_views(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    count: int,
    size: int,
    rng: np.random.Generator,
    up: Up = "z",
) -> Views:
    """Depth and shaded color of a mesh in the unit cube, or of a moving one from cameras that stand still.

    Args:
        vertices: ([T,] V, 3) in the unit cube centered at 0, at each time of a sequence.
        faces: (F, 3), of all times.
        count: cameras around it.
        size: width and height of a picture in pixels.
        rng: of the cameras' places.
        up: the axis that points up.

    Color is the mean of four rays a pixel, depth that of the ray through the pixel's center.
    """
    cameras = cameras_around(count, rng, up)
    moments = vertices.reshape(-1, *vertices.shape[-2:])
    rgb = np.empty((len(moments), count, size, size, 3), np.uint8)
    depth = np.empty((len(moments), count, size, size), np.float32)
    for moment, places in enumerate(moments):
        scene = _Scene(places, faces)
        for view, camera in enumerate(cameras):
            rgb[moment, view], depth[moment, view] = scene.picture(camera, size)
    times = vertices.shape[:-2]
    return Views(
        rgb.reshape(*times, *rgb.shape[1:]),
        depth.reshape(*times, *depth.shape[1:]),
        np.stack([camera.pose() for camera in cameras]),
        np.stack([camera.pinhole(size, size) for camera in cameras]),
    )


class _Scene:
    """A mesh that rays are cast at."""

    def __init__(self, vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> None:
        self._scene = ray_tree([(vertices, faces)])

    def picture(self, camera: Camera, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Color (size, size, 3) and depth (size, size)."""
        depth, _ = self._cast(camera, size)
        _, light = self._cast(camera, size * SUPERSAMPLING)
        shade = np.where(light < 0, BACKGROUND, 255 * SURFACE * (AMBIENT + (1 - AMBIENT) * light))
        mean = shade.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
        gray = np.rint(mean)[..., None].astype(np.uint8)
        return np.broadcast_to(gray, (size, size, 3)), depth.reshape(size, size)

    def _cast(self, camera: Camera, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth along the camera's axis (0 for none) and cosine to the light (-1), of one ray for each pixel."""
        origins, directions = camera.rays(size, size)
        axes = camera.axes()
        rays = np.concatenate([origins, directions], axis=1)
        hits = self._scene.cast_rays(tensor(rays), nthreads=ray_threads())
        distance = hits["t_hit"].numpy()
        is_hit = np.isfinite(distance)
        depth = np.where(is_hit, distance, 0) * (directions @ axes[2])
        normals = hits["primitive_normals"].numpy().astype(np.float64)
        # Lit on the side that is seen.
        normals *= np.where((normals * directions).sum(axis=1) > 0, -1, 1)[:, None]
        light = np.maximum(normals @ (LIGHT * [1, -1, -1] @ axes), 0)
        return depth.astype(np.float32), np.where(is_hit, light, -1).astype(np.float32)
