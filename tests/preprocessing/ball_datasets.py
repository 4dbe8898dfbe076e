"""Small datasets of balls, still or moving, with random pictures: what is inside is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import (
    BLOCK,
    DatasetLayout,
    RejectedShape,
    ShapeRow,
    ShapeSamples,
    Views,
    create_dataset,
    finish_dataset,
    write_shard,
)

SPLIT_OF = ("train", "train", "train", "val", "train")  # of balls 0 to 4; the last is rejected
SIDE, PIXELS, FRAMES = 32, 20, 5
BALLS = DatasetLayout(
    shapes=len(SPLIT_OF),
    categories=("ball",),
    points=3 * BLOCK,
    uniform_queries=2 * BLOCK,
    near_queries=BLOCK,
    shapes_per_shard=2,
    voxel_side=SIDE,
    views=3,
    view_size=PIXELS,
    has_distances=True,
)
MOVING = replace(BALLS, frames=FRAMES, voxel_side=0, has_distances=False)


def radius_of(ball: int) -> float:
    return 0.25 + 0.04 * ball


def center_of(ball: int, time: float) -> NDArray[np.float64]:
    """Balls of a sequence move along x, each at its own speed."""
    return np.array([0.05 * (ball + 1) * time, 0, 0])


def make_ball(ball: int, layout: DatasetLayout, has_scan_noise: bool = False) -> ShapeSamples:
    rng = np.random.default_rng(ball)
    times = np.linspace(0, 1, layout.frames) if layout.frames else np.zeros(1)
    centers = np.stack([center_of(ball, time) for time in times])[:, None]

    def directions(count: int) -> NDArray[np.float64]:
        raw = rng.standard_normal((count, 3))
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    normals = np.broadcast_to(directions(layout.points - 100), (len(times), layout.points - 100, 3))
    points = centers + radius_of(ball) * normals
    uniform = rng.uniform(-0.55, 0.55, (len(times), layout.uniform_queries, 3)).astype(np.float32)
    near = centers + radius_of(ball) * directions(layout.near_queries)
    near = (near + rng.normal(0, 0.02, near.shape)).astype(np.float32)

    def distance(queries: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(queries - centers, axis=-1) - radius_of(ball))

    def inside(queries: NDArray[np.float32]) -> NDArray[np.bool_]:
        return distance(queries) < 0

    def stored(values: NDArray[Any]) -> NDArray[Any]:
        return values if layout.frames else values[0]

    cells = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    grid = np.stack(np.meshgrid(cells, cells, cells, indexing="ij"), axis=-1)
    pictures = rng.integers(0, 256, (len(times), 3, PIXELS, PIXELS, 3)).astype(np.uint8)
    return ShapeSamples(
        points=stored(points).astype(np.float32),
        normals=stored(normals).astype(np.float32),
        uniform_queries=stored(uniform),
        uniform_occupancy=stored(inside(uniform)),
        near_queries=stored(near),
        near_occupancy=stored(inside(near)),
        uniform_distances=stored(distance(uniform)) if layout.has_distances else None,
        near_distances=stored(distance(near)) if layout.has_distances else None,
        location=np.zeros(3),
        scale=1.0,
        category="ball",
        split=SPLIT_OF[ball],
        name=f"ball-{ball}",
        has_scan_noise=has_scan_noise,
        times=times.astype(np.float32) if layout.frames else None,
        voxels=np.linalg.norm(grid, axis=-1) < radius_of(ball) if layout.voxel_side else None,
        views=Views(
            stored(pictures),
            stored(np.ones((len(times), 3, PIXELS, PIXELS), np.float32)),
            np.zeros((3, 3, 4)),
            np.zeros((3, 3, 3)),
        )
        if layout.views
        else None,
    )


def write_balls(path: Path, layout: DatasetLayout, has_scan_noise: bool = False) -> Path:
    """A store of balls, four of them usable and the last rejected."""
    create_dataset(path, layout, {})
    for shard in range(layout.shards):
        shapes: list[ShapeRow | RejectedShape] = []
        for ball in layout.shard_shapes(shard):
            is_last = ball == layout.shapes - 1
            shapes.append(
                RejectedShape(ball, "x", "no")
                if is_last
                else make_ball(ball, layout, has_scan_noise).row(layout)
            )
        write_shard(path, shard, shapes)
    finish_dataset(path)
    return path
