"""How scanners thin, disturb and repeat the points of a surface; lengths in voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.analytic.solids import Floats
from preprocessing.rotations import log_uniform, random_rotation

LARGEST_NOISE = 0.6
LARGEST_STRAY_SHARE = 0.01


def choose_points(points: Floats, origin: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows that a scanner keeps: a pattern (even, graded, rings, with holes), then a density.

    Args:
        points: (N, 3) dense surface points.
        origin: (3,) where rings are cast from.

    The density, log-uniform from 0.4 to 25 points for each voxel that the surface crosses, spans what a default voxel
    size meets and what a user's own may ask for.
    """
    rows = np.arange(len(points))
    pattern = rng.random()
    if pattern < 0.2:  # a gradient of up to 1:100
        direction = random_rotation(rng)[0]
        along = points @ direction
        share = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
        rows = rows[rng.random(len(rows)) < np.exp(-rng.uniform(1, np.log(100)) * share)]
    elif pattern < 0.32:  # rings of a spinning lidar
        away = points - origin
        elevation = np.arctan2(away[:, 2], np.hypot(away[:, 0], away[:, 1]))
        step = log_uniform(rng, 0.02, 0.12)
        off = np.abs((elevation / step + rng.random()) % 1 - 0.5)
        near = rows[off < 0.12]
        rows = near if len(near) > 200 else rows
    elif pattern < 0.42:  # holes: glass, black, behind a pole
        for _ in range(int(rng.integers(1, 6))):
            center = points[rng.integers(len(points))]
            gone = ((points[rows] - center) ** 2).sum(axis=1) < rng.uniform(1, 4) ** 2
            rows = rows[~gone]
    voxels = len(np.unique(np.floor(points).astype(np.int64) @ np.array([1, 1024, 1048576])))
    wanted = int(voxels * log_uniform(rng, 0.4, 25))
    rows = rng.permutation(rows)[:wanted]
    if rng.random() < 0.05:  # merged scans repeat their points
        rows = np.tile(rows, int(rng.integers(2, 9)))[: len(points)]
    return rows


def disturb(points: Floats, towards: Floats, side: int, rng: np.random.Generator) -> Floats:
    """Add what a sensor adds: range noise, smooth error, depth steps, double walls, strays.

    Args:
        points: (N, 3).
        towards: (N, 3) unit vectors to the scanner, or normals.
        side: of the crop, for strays.
    """
    sigma = np.float32(LARGEST_NOISE * rng.random() ** 2)
    kind = rng.random()
    if kind < 0.6:
        points = points + rng.standard_normal(points.shape, dtype=np.float32) * sigma
    elif kind < 0.75:  # along the ray
        points = points + towards * (rng.standard_normal((len(points), 1), dtype=np.float32) * sigma)
    elif kind < 0.85:  # photogrammetry: smooth
        waves = rng.normal(0, 0.5, (4, 3)).astype(np.float32)
        bump = np.sin(points @ waves.T + rng.uniform(0, 6.3, 4).astype(np.float32)).sum(axis=1) / 2
        points = points + towards * (0.6 * sigma * bump)[:, None]
        points = points + rng.standard_normal(points.shape, dtype=np.float32) * (0.2 * sigma)
    elif kind < 0.92:  # depth in steps, as from a structured light sensor
        step = np.float32(rng.uniform(0.1, 0.8))
        axis = random_rotation(rng)[0]
        depth = points @ axis
        points = points + np.outer(np.round(depth / step) * step - depth, axis).astype(np.float32)
    else:  # a second pass of a drifting mobile scanner
        moved = rng.random(len(points)) < 0.5
        drift = random_rotation(rng)[0] * rng.uniform(0.1, 0.5)
        points = points + moved[:, None] * drift.astype(np.float32)
        points = points + rng.standard_normal(points.shape, dtype=np.float32) * (0.5 * sigma)
    if rng.random() < 0.4:
        stray = rng.random(len(points)) < rng.uniform(0, LARGEST_STRAY_SHARE)
        points = np.where(stray[:, None], rng.uniform(0, side, points.shape), points)
    return points.astype(np.float32)
