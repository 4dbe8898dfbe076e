"""A scan of a few solids with known shape."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray


def scan_points(seed: int, count: int) -> NDArray[np.float64]:
    """Points on a floor slab, a thick wall, two boxes and a ball, 6 x 5 x 4 m, with 5 mm noise."""
    rng = np.random.default_rng(seed)
    parts = [
        trimesh.creation.box(bounds=[[0, 0, 0], [6, 5, 0.5]]),
        trimesh.creation.box(bounds=[[0, 0, 0], [0.6, 5, 4]]),
        trimesh.creation.box(bounds=[[2, 1, 0.8], [3.5, 2.2, 2.1]]),
        trimesh.creation.box(bounds=[[4.2, 3.1, 0.9], [5.4, 4.4, 3.3]]),
        trimesh.creation.icosphere(4, 0.8).apply_translation([2.6, 3.7, 2.4]),
    ]
    areas = np.array([part.area for part in parts])
    counts = np.round(count * areas / areas.sum()).astype(int)
    points = [
        trimesh.sample.sample_surface(part, number, seed=seed)[0]
        for part, number in zip(parts, counts, strict=True)
    ]
    cloud = np.concatenate(points)
    return np.asarray(cloud[rng.permutation(len(cloud))] + rng.normal(0, 0.005, cloud.shape))
