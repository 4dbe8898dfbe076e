"""Pictures without a graphics card: ray casting on the processor, z up, shaded by lights and occlusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foundation.atomic_file import appearing
from preprocessing.errors import MeshError
from preprocessing.native import ray_threads, ray_tree, tensor
from preprocessing.pictures.camera import Camera, orbit_camera

FRONT = np.array([0.84, 0.82, 0.78])
BACK = np.array([0.80, 0.34, 0.26])  # faces seen from inside the solid, as at a cut
SKY = (np.array([0.98, 0.985, 1.0]), np.array([0.86, 0.89, 0.93]))
LIGHTS = ((np.array([0.45, -0.6, 0.75]), 0.62), (np.array([-0.7, 0.2, 0.35]), 0.22))
OCCLUSION_RAYS = 12


class MeshPictures:
    """Renders one mesh from several cameras; the ray tree is built once.

    Args:
        vertices, faces: (V, 3) and (F, 3).
        colors: (V, 3) uint8 or None.

    Raises:
        MeshError: if there are no faces.
    """

    def __init__(
        self,
        vertices: NDArray[np.float64],
        faces: NDArray[np.integer],
        colors: NDArray[np.uint8] | None = None,
    ) -> None:
        if not len(faces):
            raise MeshError("the mesh has no faces to draw")
        # Stray blobs far from the object must not shrink it: frame all but the outermost vertices.
        low, high = np.quantile(vertices, [0.001, 0.999], axis=0)
        margin = 0.01 * (high - low)
        self.low, self.high = low - margin, high + margin
        self._center = 0.5 * (self.low + self.high)
        self._scene = ray_tree([(vertices - self._center, faces)])
        self._faces, self._colors = faces, colors

    def picture(
        self, camera: Camera, width: int, height: int, cut_above: float | None = None
    ) -> NDArray[np.uint8]:
        """One picture (height, width, 3).

        Args:
            camera: where from.
            width, height: pixels; each is the mean of four rays.
            cut_above: height of a horizontal cut; what lies above it is not there, and what the cut
                opens shows its red inside.
        """
        origins, directions = camera.rays(2 * width, 2 * height)
        start = origins - self._center
        if cut_above is not None:
            above = start[:, 2] - (cut_above - self._center[2])
            travel = np.where(directions[:, 2] < 0, above / np.maximum(-directions[:, 2], 1e-9), 0.0)
            start = start + np.maximum(travel, 0)[:, None] * directions
        ceiling = np.inf if cut_above is None else cut_above - float(self._center[2])
        shades = self._shade(start, directions, ceiling)
        fine = shades.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
        return np.asarray(np.clip(fine * 255, 0, 255).astype(np.uint8))

    def _cast(
        self, start: NDArray[np.float64], directions: NDArray[np.float64], ceiling: float
    ) -> dict[str, NDArray[Any]]:
        """What the rays hit first; a hit above the ceiling is none, as such a ray never comes down again."""
        rays = np.concatenate([start, directions], axis=1)
        hits = self._scene.cast_rays(tensor(rays), nthreads=ray_threads())
        names = ("t_hit", "primitive_ids", "primitive_normals", "primitive_uvs")
        found = {name: hits[name].numpy() for name in names}
        if np.isfinite(ceiling):
            distance = found["t_hit"]
            hit = np.isfinite(distance)
            height = start[:, 2] + np.where(hit, distance, 0) * directions[:, 2]
            slack = 1e-5 * float(np.linalg.norm(self.high - self.low))
            found["t_hit"] = np.where(hit & (height > ceiling + slack), np.inf, distance)
        return found

    def _shade(
        self, start: NDArray[np.float64], directions: NDArray[np.float64], ceiling: float
    ) -> NDArray[np.float64]:
        hits = self._cast(start, directions, ceiling)
        distance = hits["t_hit"].astype(np.float64)
        hit = np.isfinite(distance)
        blend = np.linspace(0, 1, len(distance))[:, None]
        result = SKY[0] * (1 - blend) + SKY[1] * blend
        normals = hits["primitive_normals"][hit].astype(np.float64)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        facing = (normals * directions[hit]).sum(axis=1) < 0
        color = np.where(facing[:, None], self._surface_color(hits, hit), BACK)
        outward = np.where(facing[:, None], normals, -normals)
        place = start[hit] + distance[hit, None] * directions[hit]
        size = float(np.linalg.norm(self.high - self.low))
        light = 0.34 * self._openness(place + 1e-4 * size * outward, outward, 0.05 * size, ceiling)
        for direction, strength in LIGHTS:
            unit = direction / np.linalg.norm(direction)
            light += strength * np.maximum((outward * unit).sum(axis=1), 0)
        shaded = color * (light[:, None] + 0.12)
        if np.isfinite(ceiling):
            shaded = np.where(facing[:, None], shaded, BACK * 0.9)
        result[hit] = shaded
        return result

    def _surface_color(self, hits: dict[str, NDArray[Any]], hit: NDArray[np.bool_]) -> NDArray[np.float64]:
        if self._colors is None:
            return np.broadcast_to(FRONT, (int(hit.sum()), 3))
        corners = self._colors[self._faces[hits["primitive_ids"][hit]]].astype(np.float64) / 255
        u, v = hits["primitive_uvs"][hit].astype(np.float64).T
        weights = np.stack([1 - u - v, u, v], axis=1)
        return np.asarray((corners * weights[..., None]).sum(axis=1) * 0.9 + 0.05)

    def _openness(
        self, place: NDArray[np.float64], outward: NDArray[np.float64], reach: float, ceiling: float
    ) -> NDArray[np.float64]:
        """Share of directions above the surface that are free within `reach`."""
        rng = np.random.default_rng(0)
        free = np.zeros(len(place))
        for _ in range(OCCLUSION_RAYS):
            direction = rng.standard_normal(place.shape)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            direction += outward * 1.05
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            free += self._cast(place, direction, ceiling)["t_hit"] > reach
        return free / OCCLUSION_RAYS


def point_picture(
    points: NDArray[np.float64],
    camera: Camera,
    width: int,
    height: int,
    colors: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Points as dots, the nearest in front; colored by height where they have no colors."""
    canvas = np.full((height, width, 3), 250, np.uint8)
    if not len(points):
        return canvas
    places, depth, is_seen = camera.project(points, width, height)
    order = np.flatnonzero(is_seen)[np.argsort(-depth[is_seen], kind="stable")]
    if colors is None:
        low, high = np.quantile(points[:, 2], [0.01, 0.99])
        t = np.clip((points[order, 2] - low) / max(high - low, 1e-9), 0, 1)[:, None]
        shade = (1 - t) * np.array([40, 70, 140]) + t * np.array([230, 170, 60])
    else:
        shade = colors[order]
    canvas[places[order, 1], places[order, 0]] = shade.astype(np.uint8)
    return canvas


def preview_sheet(
    vertices: NDArray[np.float64],
    faces: NDArray[np.integer],
    path: Path,
    points: NDArray[np.float64] | None = None,
    colors: NDArray[np.uint8] | None = None,
    point_colors: NDArray[np.uint8] | None = None,
    title: str = "",
    size: tuple[int, int] = (720, 520),
) -> None:
    """Write one PNG with the scan, two views, the view from above, and two cut-aways.

    Args:
        vertices, faces: the mesh.
        path: the PNG.
        points: the scan, drawn beside the mesh.
        colors, point_colors: (V, 3) and (N, 3) uint8 or None.
        title: a line above the pictures.
        size: pixels of one picture.
    """
    width, height = size
    pictures = MeshPictures(vertices, faces, colors)
    low, high = pictures.low, pictures.high
    corner, opposite = orbit_camera(low, high, -55, 28), orbit_camera(low, high, 125, 28)
    steep = orbit_camera(low, high, -55, 55)
    tall = high[2] - low[2]
    panels: list[tuple[str, NDArray[np.uint8]]] = []
    if points is not None:
        panels.append(
            (f"scan, {len(points):,} points", point_picture(points, corner, width, height, point_colors))
        )
    panels += [
        (f"mesh, {len(faces):,} faces", pictures.picture(corner, width, height)),
        ("from the other side", pictures.picture(opposite, width, height)),
        ("cut at 75% of the height", pictures.picture(steep, width, height, float(low[2] + 0.75 * tall))),
        ("cut at 22% of the height", pictures.picture(steep, width, height, float(low[2] + 0.22 * tall))),
        ("from above", pictures.picture(orbit_camera(low, high, -90, 89.5), width, height)),
    ]
    columns, bar = 3, 30
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + bar) + bar), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    draw.text((10, 5), title, fill="black", font=font)
    for number, (caption, picture) in enumerate(panels):
        x, y = number % columns * width, number // columns * (height + bar) + bar
        draw.text((x + 10, y + 5), caption, fill=(60, 60, 60), font=font)
        sheet.paste(Image.fromarray(picture), (x, y + bar))
    with appearing(path) as partial:
        sheet.save(partial, "PNG")
