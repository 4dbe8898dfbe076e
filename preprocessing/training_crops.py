"""Random training crops from a dataset, in voxel units, at many densities, scales and noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from preprocessing.dataset import SPLITS, read_layout, rows
from preprocessing.errors import DatasetError


@dataclass(frozen=True)
class CropConfig:
    """What a training crop looks like; lengths in voxels.

    Attributes:
        grid: side of a crop that holds a whole room.
        window_grid: side of a crop cut out of something larger.
        queries: labelled queries of one crop.
        near_share: share of the queries that lie near the surface.
        context: distance from a cut border within which nothing is asked, because the network lacks context.
        noise: largest standard deviation added to noise-free points.
        outliers: largest share of points replaced by uniform ones.
        cache_bytes: memory that may keep shapes decoded between their uses.
    """

    grid: int = 64
    window_grid: int = 48
    queries: int = 3072
    near_share: float = 0.6
    context: float = 6.0
    noise: float = 0.6
    outliers: float = 0.01
    cache_bytes: int = 7 * 2**30


@dataclass(frozen=True)
class TrainingCrops:
    """A batch of crops.

    Attributes:
        points: (N, 3) float32 in voxel units of each crop; point_batch: (N,) int64 its crop.
        queries: (Q, 3) float32; query_batch: (Q,) int64; occupancy: (Q,) float32 of 0 and 1.
        batch_size: number of crops; grid_shape: voxels along z, y, x.
    """

    points: NDArray[np.float32]
    point_batch: NDArray[np.int64]
    queries: NDArray[np.float32]
    query_batch: NDArray[np.int64]
    occupancy: NDArray[np.float32]
    batch_size: int
    grid_shape: tuple[int, int, int]


class CropSource:
    """Draws batches from one split; batch `step` of rank `rank` depends on the seed and on nothing else.

    Raises:
        DatasetError: if the store is not a dataset or the split is empty.
    """

    def __init__(self, path: Path, split: str, config: CropConfig, seed: int) -> None:
        layout, _ = read_layout(path)
        if layout.frames or not layout.uniform_queries or not layout.near_queries:
            raise DatasetError(
                f"{path}: holds sequences, or scans without occupancy; crops train on still shapes with queries"
            )
        self.group = zarr.open_group(str(path), mode="r")
        wanted = rows(self.group, "valid") & (rows(self.group, "split") == SPLITS.index(split))
        self.shapes = np.flatnonzero(wanted)
        if not len(self.shapes):
            raise DatasetError(
                f"{path}: no shapes in split '{split}'; preprocess more, or resume an unfinished run"
            )
        self.is_whole = ~rows(self.group, "is_window")[self.shapes]
        self.config = config
        self.seed = seed
        self._cache: dict[int, _Shape] = {}
        self._cached_bytes = 0

    def batch(self, step: int, batch_size: int, rank: int = 0) -> TrainingCrops:
        """Batch number `step`: crops of one grid size each time."""
        rng = np.random.default_rng([self.seed, step, rank])
        is_whole = bool(rng.random() < 0.4) and bool(self.is_whole.any())
        candidates = self.shapes[self.is_whole] if is_whole else self.shapes
        grid = self.config.grid if is_whole else self.config.window_grid
        crops = [self._crop(int(rng.choice(candidates)), is_whole, grid, rng) for _ in range(batch_size)]
        points, queries, occupancy = zip(*crops, strict=True)
        return TrainingCrops(
            points=np.concatenate(points),
            point_batch=np.repeat(np.arange(batch_size), [len(p) for p in points]),
            queries=np.concatenate(queries),
            query_batch=np.repeat(np.arange(batch_size), [len(q) for q in queries]),
            occupancy=np.concatenate(occupancy),
            batch_size=batch_size,
            grid_shape=(grid, grid, grid),
        )

    def _crop(
        self, shape: int, is_whole: bool, grid: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        config = self.config
        stored = self._shape(shape)
        is_complete, points = stored.is_whole, stored.points
        count = len(points)
        rotation = _random_rotation(rng, is_upright=is_whole)
        if is_whole:
            kept = int(np.exp(rng.uniform(np.log(3_000), np.log(40_000))))
            voxels_per_unit = rng.uniform(46, 60)
            centre = rng.uniform(-0.5, 0.5, 3) * (grid - voxels_per_unit - 2) / voxels_per_unit
        else:
            kept = int(count * np.exp(rng.uniform(np.log(0.08), 0)))
            voxels_per_unit = np.exp(rng.uniform(np.log(50), np.log(110 if is_complete else 200)))
            centre = points[rng.integers(count)] + rng.normal(0, 6, 3) / voxels_per_unit
        start = int(rng.integers(count))
        points = np.take(points, np.arange(start, start + min(kept, count)), axis=0, mode="wrap")

        def to_crop(positions: NDArray[np.float32]) -> NDArray[np.float32]:
            local = (positions - centre.astype(np.float32)) @ rotation.T
            return (local * np.float32(voxels_per_unit) + np.float32(grid / 2)).astype(np.float32)

        cloud = to_crop(points)
        sigma = rng.uniform(0, 0.15 if stored.has_scan_noise else config.noise)
        cloud += (rng.standard_normal(cloud.shape, dtype=np.float32)) * np.float32(sigma)
        stray = rng.random(len(cloud)) < rng.uniform(0, config.outliers) * (rng.random() < 0.5)
        cloud[stray] = rng.uniform(0, grid, (int(stray.sum()), 3))
        cloud = cloud[((cloud >= 0) & (cloud < grid)).all(axis=1)]

        queries, labels = [], []
        for kind, wanted in (
            ("near", round(config.queries * config.near_share)),
            ("uniform", config.queries - round(config.queries * config.near_share)),
        ):
            asked, occupied = stored.queries[kind]
            local = to_crop(asked)
            margin = 0.0 if is_whole else config.context
            usable = ((local > margin) & (local < grid - margin)).all(axis=1)
            if not is_complete:  # beyond the window nothing was kept: stay away from its faces too
                usable &= np.abs(asked).max(axis=1) < 0.5 - margin / voxels_per_unit
            chosen = rng.permutation(np.flatnonzero(usable))[:wanted]
            queries.append(local[chosen])
            labels.append(occupied[chosen].astype(np.float32))
        return cloud, np.concatenate(queries), np.concatenate(labels)

    def _shape(self, shape: int) -> _Shape:
        """A shape's arrays, decoded once while the cache has room."""
        if shape in self._cache:
            return self._cache[shape]
        count = int(self._read("point_count", shape))
        queries = {
            kind: (
                self._read(f"{kind}_queries", shape),
                np.unpackbits(self._read(f"{kind}_occupancy", shape)),
            )
            for kind in ("near", "uniform")
        }
        loaded = _Shape(
            points=self._read("points", shape)[:count],
            has_scan_noise=bool(self._read("has_scan_noise", shape)),
            is_whole=not bool(self._read("is_window", shape)),
            queries=queries,
        )
        size = loaded.points.nbytes + sum(asked.nbytes + bits.nbytes for asked, bits in queries.values())
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
    has_scan_noise: bool
    is_whole: bool
    queries: dict[str, tuple[NDArray[np.float32], NDArray[np.uint8]]]


def _random_rotation(rng: np.random.Generator, is_upright: bool) -> NDArray[np.float32]:
    """A mirror image, turned about z; unless upright, also by any angle and sometimes tilted."""
    quarter = rng.integers(4) * (np.pi / 2)
    angle = quarter if is_upright else quarter + rng.uniform(0, np.pi / 2) * (rng.random() < 0.6)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    if rng.random() < 0.5:
        turn[0] *= -1
    if not is_upright and rng.random() < 0.3:
        tilt = rng.normal(0, 0.12)
        lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        turn = turn @ lean
    if not is_upright and rng.random() < 0.1:
        turn = turn[rng.permutation(3)]
    return turn.astype(np.float32)


def training_source(path: Path, seed: int) -> CropSource:
    """The training split with the default crops, as `python -m convonet.fit --source` wants it."""
    return CropSource(path, "train", CropConfig(), seed)
