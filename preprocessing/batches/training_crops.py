"""Random training crops from a dataset, in voxel units, at many densities, scales and noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.batches.seen_labels import SeenVoxels
from preprocessing.batches.split_samples import open_split
from preprocessing.batches.training_batches import TrainingCrop, TrainingCrops
from preprocessing.dataset import read_layout, rows
from preprocessing.dataset.samples import NORMAL_STEPS
from preprocessing.errors import DatasetError
from preprocessing.rotations import log_uniform, random_rotation, turn_about_z


@dataclass(frozen=True)
class CropConfig:
    """What a training crop looks like; lengths in voxels.

    Attributes:
        grid: side of a crop that holds a whole shape.
        window_grid: side of a crop cut out of something larger.
        whole_share: share of the batches made of whole shapes.
        queries: labeled queries of one crop.
        near_share: share of the queries that lie near the surface.
        context: distance from a cut border within which nothing is asked, because the network lacks context.
        noise: largest standard deviation added to noise-free points.
        scan_noise: largest standard deviation added to points that carry a scanner's noise.
        outliers: largest share of points replaced by uniform ones.
        outliers_share: share of the crops that have some.
        whole_points: fewest and most points of a whole shape.
        whole_voxels: fewest and most voxels along the unit cube of a whole shape.
        whole_margin: distance between the unit cube of a whole shape and the crop's faces, at least.
        window_voxels: likewise of a shape that is a window, and so larger than a crop.
        part_voxels: likewise of a whole shape of which the crop is a part.
        kept_share: smallest share of a window's points that are kept.
        spread: standard deviation of a window's center about a point of the surface.
        free_turns: share of the crops turned uniformly over SO(3).
        quarter_turns: share of the crops turned about z by quarters; the others turn about z by any angle.
        mirrored_share: share of the crops that are mirrored, too.
        directions_share: share of the crops whose points carry directions to their free side.
        cache_bytes: memory that may keep shapes decoded between their uses.
    """

    grid: int = 64
    window_grid: int = 40
    whole_share: float = 0.3
    queries: int = 8192
    near_share: float = 0.7
    context: float = 6.0
    noise: float = 0.6
    scan_noise: float = 0.15
    outliers: float = 0.01
    outliers_share: float = 0.5
    whole_points: tuple[int, int] = (3_000, 40_000)
    whole_voxels: tuple[float, float] = (46.0, 60.0)
    whole_margin: float = 1.0
    window_voxels: tuple[float, float] = (24.0, 200.0)
    part_voxels: tuple[float, float] = (50.0, 110.0)
    kept_share: float = 0.08
    spread: float = 6.0
    free_turns: float = 0.5
    quarter_turns: float = 0.2
    mirrored_share: float = 0.5
    directions_share: float = 0.5
    cache_bytes: int = 7 * 2**30


class CropSource:
    """Draws batches from one split; batch `step` of rank `rank` depends on the seed and on nothing else.

    Raises:
        DatasetError: if the store is not a dataset, lacks signed distances, or the split is empty.
    """

    def __init__(self, path: Path, split: str, config: CropConfig, seed: int) -> None:
        layout, _ = read_layout(path)
        if layout.frames or not layout.uniform_queries or not layout.near_queries or not layout.has_distances:
            raise DatasetError(
                f"{path}: holds sequences, or shapes without signed distances; crops train on stores made by "
                "`tessera preprocess rooms` or `meshes`"
            )
        self.group, self.shapes = open_split(path, split, layout)
        self.is_whole = ~rows(self.group, "is_window")[self.shapes]
        self.config = config
        self.seed = seed
        self._cache: dict[int, _Shape] = {}
        self._cached_bytes = 0

    def batch(self, step: int, batch_size: int, rank: int = 0) -> TrainingCrops:
        """Batch number `step`: crops of one grid size each time."""
        rng = np.random.default_rng([self.seed, step, rank])
        is_whole = bool(rng.random() < self.config.whole_share) and bool(self.is_whole.any())
        candidates = self.shapes[self.is_whole] if is_whole else self.shapes
        grid = self.config.grid if is_whole else self.config.window_grid
        crops = [self._crop(int(rng.choice(candidates)), is_whole, grid, rng) for _ in range(batch_size)]
        return TrainingCrops.of_crops(crops, grid)

    def _crop(self, shape: int, is_whole: bool, grid: int, rng: np.random.Generator) -> TrainingCrop:
        config = self.config
        stored = self._shape(shape)
        count = len(stored.points)
        rotation = self._rotation(is_whole, rng)
        if is_whole:
            kept = int(log_uniform(rng, *config.whole_points))
            scale = rng.uniform(*config.whole_voxels)
            center = rng.uniform(-0.5, 0.5, 3) * (grid - scale - 2 * config.whole_margin) / scale
        else:
            kept = int(count * log_uniform(rng, config.kept_share, 1.0))
            scale = log_uniform(rng, *(config.part_voxels if stored.is_whole else config.window_voxels))
            center = stored.points[rng.integers(count)] + rng.normal(0, config.spread, 3) / scale

        def to_crop(positions: NDArray[np.float32]) -> NDArray[np.float32]:
            local = (positions - center.astype(np.float32)) @ rotation.T
            return (local * np.float32(scale) + np.float32(grid / 2)).astype(np.float32)

        every = to_crop(stored.points)
        start = int(rng.integers(count))
        cloud = np.take(every, np.arange(start, start + min(kept, count)), axis=0, mode="wrap")
        directions: NDArray[np.float32] = np.zeros_like(cloud)
        if rng.random() < config.directions_share:
            normals = np.take(stored.normals, np.arange(start, start + len(cloud)), axis=0, mode="wrap")
            units = normals.astype(np.float32) / np.float32(NORMAL_STEPS)
            directions = (units @ rotation.T).astype(np.float32)
        sigma = rng.uniform(0, config.scan_noise if stored.has_scan_noise else config.noise)
        cloud += rng.standard_normal(cloud.shape, dtype=np.float32) * np.float32(sigma)
        stray = rng.random(len(cloud)) < rng.uniform(0, config.outliers) * (
            rng.random() < config.outliers_share
        )
        cloud[stray] = rng.uniform(0, grid, (int(stray.sum()), 3))
        inside = ((cloud >= 0) & (cloud < grid)).all(axis=1)

        queries: list[NDArray[np.float32]] = []
        distances: list[NDArray[np.float32]] = []
        near = round(config.queries * config.near_share)
        for kind, wanted in (("near", near), ("uniform", config.queries - near)):
            asked, stored_away = stored.queries[kind]
            local = to_crop(asked)
            margin = 0.0 if is_whole else config.context
            usable = ((local > margin) & (local < grid - margin)).all(axis=1)
            if not stored.is_whole:  # beyond the window nothing was kept: stay away from its faces too
                usable &= np.abs(asked).max(axis=1) < 0.5 - margin / scale
            chosen = rng.permutation(np.flatnonzero(usable))[:wanted]
            queries.append(local[chosen])
            distances.append(stored_away[chosen].astype(np.float32) * np.float32(scale))
        asked, away = np.concatenate(queries), np.concatenate(distances)
        if stored.has_scan_noise:
            seen = every[((every >= 0) & (every < grid)).all(axis=1)]
            labels, is_certain = SeenVoxels.of_points(seen, grid).labels(asked, away)
            is_certain &= (labels < 0) == (away < 0)  # what lies deep inside may be enclosed: it is not asked
            asked, away = asked[is_certain], labels[is_certain]
        return TrainingCrop(cloud[inside], directions[inside], asked, away)

    def _rotation(self, is_whole: bool, rng: np.random.Generator) -> NDArray[np.float32]:
        """A rotation or mirror image; whole shapes, which fill their crop, turn by quarters about z."""
        chance = rng.random()
        if is_whole or chance < self.config.quarter_turns:
            turn = turn_about_z(int(rng.integers(4)) * np.pi / 2)
        elif chance < self.config.quarter_turns + self.config.free_turns:
            turn = random_rotation(rng)
        else:
            turn = turn_about_z(rng.uniform(0, 2 * np.pi))
        if rng.random() < self.config.mirrored_share:
            turn[0] *= -1
        return turn

    def _shape(self, shape: int) -> _Shape:
        """A shape's arrays, decoded once while the cache has room."""
        if shape in self._cache:
            return self._cache[shape]
        count = int(self._read("point_count", shape))
        queries = {
            kind: (self._read(f"{kind}_queries", shape), self._read(f"{kind}_distances", shape))
            for kind in ("near", "uniform")
        }
        loaded = _Shape(
            points=self._read("points", shape)[:count],
            normals=self._read("normals", shape)[:count],
            has_scan_noise=bool(self._read("has_scan_noise", shape)),
            is_whole=not bool(self._read("is_window", shape)),
            queries=queries,
        )
        size = loaded.points.nbytes + loaded.normals.nbytes
        size += sum(asked.nbytes + away.nbytes for asked, away in queries.values())
        if self._cached_bytes + size <= self.config.cache_bytes:
            self._cache[shape] = loaded
            self._cached_bytes += size
        return loaded

    def _read(self, name: str, shape: int) -> NDArray[Any]:
        return np.asarray(self.group[name][shape])  # type: ignore[index]


@dataclass(frozen=True)
class _Shape:
    """One shape's arrays; see `ShapeSamples`."""

    points: NDArray[np.float32]
    normals: NDArray[np.int8]
    has_scan_noise: bool
    is_whole: bool
    queries: dict[str, tuple[NDArray[np.float32], NDArray[np.float16]]]


def training_source(path: Path, seed: int) -> CropSource:
    """The training split with the default crops, as `python -m convonet.fit --source` wants it."""
    return CropSource(path, "train", CropConfig(), seed)
