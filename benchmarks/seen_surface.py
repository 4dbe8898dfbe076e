"""Which parts of an exact surface the stations of a scan can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.metrics import nearest_on_surface
from preprocessing.native import load_open3d, ray_threads
from preprocessing.procedural.scanner import ScannerConfig

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]

LEAST_ANGLE_DEG = 5.0  # between ray and surface; flatter rays give next to no returns
LIFT_M = 1e-4  # off the surface, before looking for what is in the way


@dataclass(frozen=True)
class SeenSurface:
    """A surface cut into small faces, seen or not.

    Attributes:
        vertices: (V, 3).
        seen, unseen: (F, 3) faces, rows of `vertices`.
    """

    vertices: Floats
    seen: Faces
    unseen: Faces

    @property
    def seen_share(self) -> float:
        """Of the area."""
        seen, unseen = self._area(self.seen), self._area(self.unseen)
        return seen / (seen + unseen)

    def is_nearest_seen(self, points: Floats) -> NDArray[np.bool_]:
        """Whether the point of the surface nearest to each of (N, 3) points is seen."""
        if not len(self.unseen) or not len(self.seen):
            return np.full(len(points), bool(len(self.seen)))
        to_seen, _ = nearest_on_surface(self.vertices, self.seen, points)
        to_unseen, _ = nearest_on_surface(self.vertices, self.unseen, points)
        nearest: NDArray[np.bool_] = to_seen <= to_unseen
        return nearest

    def _area(self, faces: Faces) -> float:
        corners = self.vertices[faces]
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return 0.5 * float(np.linalg.norm(cross, axis=1).sum())


def seen_surface(
    vertices: Floats, faces: Faces, stations: Floats, scanner: ScannerConfig, longest_edge: float
) -> SeenSurface:
    """Cut a surface into faces and ask of each middle whether a station has it in sight.

    Args:
        vertices, faces: closed, facing out, meters.
        stations: (S, 3).
        scanner: its elevations and its range.
        longest_edge: of the faces, meters.
    """
    o3d = load_open3d()
    center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    caster = o3d.t.geometry.RaycastingScene(nthreads=ray_threads())
    caster.add_triangles(
        o3d.core.Tensor((vertices - center).astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
    )
    corners = bisected(vertices[faces], longest_edge)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    middles = corners.mean(axis=1) + LIFT_M * normals
    is_seen = np.zeros(len(corners), bool)
    elevations = np.sin(np.radians([scanner.elevation_low_deg, scanner.elevation_high_deg]))
    for station in stations:
        ways = station - middles
        ranges = np.maximum(np.linalg.norm(ways, axis=1), 1e-9)
        rise = -ways[:, 2] / ranges  # seen from the station
        facing = (ways * normals).sum(axis=1) / ranges
        asked = np.flatnonzero(
            ~is_seen
            & (facing > np.sin(np.radians(LEAST_ANGLE_DEG)))
            & (rise >= elevations[0])
            & (rise <= elevations[1])
            & (ranges <= scanner.max_range)
        )
        rays = np.concatenate([middles[asked] - center, ways[asked]], axis=1).astype(np.float32)
        hidden = caster.test_occlusions(
            o3d.core.Tensor(rays), tnear=0.0, tfar=1.0, nthreads=ray_threads()
        ).numpy()
        is_seen[asked[~hidden]] = True
    rows = np.arange(3 * len(corners)).reshape(-1, 3)
    return SeenSurface(corners.reshape(-1, 3), rows[is_seen], rows[~is_seen])


def bisected(corners: Floats, longest_edge: float) -> Floats:
    """Faces (F, 3, 3) halved across their longest edge until none is longer: (G, 3, 3)."""
    done = []
    while len(corners):
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)
        longest = sides.argmax(axis=1)
        is_short = sides.max(axis=1) <= longest_edge
        done.append(corners[is_short])
        start = longest[~is_short, None] + np.arange(3)
        a, b, c = np.moveaxis(np.take_along_axis(corners[~is_short], start[..., None] % 3, axis=1), 1, 0)
        middle = 0.5 * (a + b)
        corners = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
    return np.concatenate(done) if done else corners
