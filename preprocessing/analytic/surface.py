"""Points on the surface of an analytic solid, and which of them a scanner sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.analytic.solids import Floats, Solid, gradient, length

BAND = 0.25  # voxels: candidates this near are projected; a thin band keeps edges as dense as faces
CANDIDATE_ROUNDS = 6
STEPS_TO_STATION = 28
START = 0.6  # voxels from the surface at which the line to the station begins


def surface_points(solid: Solid, side: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Evenly spread points on the part of a surface inside the cube [0, side]^3, and their outward normals.

    Candidates are drawn in the unit cells that the surface may cross, kept in a thin band around it, and projected.

    Returns:
        (N, 3) and (N, 3) float32; N is at most `count`, less where there is little surface.
    """
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    near = cells[np.abs(solid.distance(cells.astype(np.float32) + 0.5)) < 0.5 * np.sqrt(3) + BAND]
    if not len(near):
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)
    found: list[Floats] = []
    missing = count
    for _ in range(CANDIDATE_ROUNDS):
        drawn = near[rng.integers(len(near), size=min(6 * missing, 250_000))]
        candidates = drawn.astype(np.float32) + rng.random(drawn.shape, dtype=np.float32)
        close = candidates[np.abs(solid.distance(candidates)) < BAND]
        found.append(close[:missing])
        missing -= len(found[-1])
        if missing <= 0 or not len(close):
            break
    points = np.concatenate(found)
    slope = gradient(solid, points)
    normals = slope / np.maximum(length(slope), 1e-3)[:, None]
    points = (points - solid.distance(points)[:, None] * normals).astype(np.float32)
    return points, normals.astype(np.float32)


def is_seen(solid: Solid, points: Floats, normals: Floats, station: Floats) -> NDArray[np.bool_]:
    """Which surface points have a free line to the station: sphere tracing from the surface towards it.

    Args:
        solid: what may be in the way.
        points, normals: (N, 3) on its surface.
        station: (3,).
    """
    away = station - points
    far = length(away)
    directions = (away / np.maximum(far, 1e-6)[:, None]).astype(np.float32)
    seen: NDArray[np.bool_] = (directions * normals).sum(axis=1) > 0.05
    walked = np.full(len(points), START, np.float32)
    rows = np.flatnonzero(seen)
    for _ in range(STEPS_TO_STATION):
        if not len(rows):
            break
        room = solid.distance(np.asarray(points[rows] + walked[rows, None] * directions[rows], np.float32))
        seen[rows[room < 0.02]] = False
        walked[rows] += np.maximum(room, 0.15)
        rows = rows[(room >= 0.02) & (walked[rows] < far[rows])]
    return seen
