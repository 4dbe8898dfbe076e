"""Random training batches of single shapes and of sequences, read block by block from a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from preprocessing.dataset import BLOCK, SPLITS, BlockReader, DatasetLayout, read_layout, rows
from preprocessing.errors import DatasetError

CROP_ATTEMPTS = 1000

InputKind = Literal["points", "partial", "crops", "voxels", "views", "index", "nothing"]


@dataclass(frozen=True)
class ShapeConfig:
    """What a network sees of a shape, and what it is asked; lengths in sides of the unit cube.

    Attributes:
        inputs: a noisy cloud ("points"), one cut off along an axis ("partial"), a cloud with the box of a crop
            ("crops"), an occupancy grid ("voxels"), a picture ("views"), the shape's number ("index") or "nothing".
        points: of a cloud.
        noise: standard deviation added to points that carry no scanner's noise yet.
        kept_share: of the cloud's extent along a random axis, at least, of a partial cloud.
        queries: labelled queries of one shape.
        near_share: share of them that lies near the surface; the others are uniform.
        voxel_side: side of the occupancy grid that the network takes.
        picture_side: width and height that pictures are scaled to.
        crop_side: side of the box that the network sees of a crop.
        crop_query_side: side of the box in its middle that is asked.
    """

    inputs: InputKind = "points"
    points: int = 3000
    noise: float = 0.005
    kept_share: float = 0.7
    queries: int = 2048
    near_share: float = 0.0
    voxel_side: int = 32
    picture_side: int = 224
    crop_side: float = 0.44
    crop_query_side: float = 0.125

    def __post_init__(self) -> None:
        if self.inputs not in get_args(InputKind):
            raise ValueError(f"inputs must be one of {', '.join(get_args(InputKind))}, not {self.inputs!r}")
        if min(self.points, self.queries) < 1:
            raise ValueError("points and queries must be at least 1")
        if not (0 <= self.near_share <= 1 and 0 < self.kept_share <= 1):
            raise ValueError("near_share lies in [0, 1] and kept_share in (0, 1]")


@dataclass(frozen=True)
class ShapeArrays:
    """A batch of shapes.

    Attributes:
        inputs: (B, N, 3) float32 points; (B, R, R, R) float32 voxels of 0 and 1, indexed x, y, z; (B, 3, H, W)
            float32 pictures in [0, 1]; (B,) int64 numbers; or (B, 0) float32.
        queries: (B, Q, 3) float32; occupancy: (B, Q) float32 of 0 and 1.
        lower, upper: (B, 3) float32 corners of the boxes of crops; None for whole shapes.
        seed: for whatever training draws itself.
    """

    inputs: NDArray[Any]
    queries: NDArray[np.float32]
    occupancy: NDArray[np.float32]
    lower: NDArray[np.float32] | None
    upper: NDArray[np.float32] | None
    seed: int


@dataclass(frozen=True)
class SequenceConfig:
    """What a network sees of a sequence, and what it is asked.

    Attributes:
        frames: that the network is made for.
        points: of the cloud at each time; 0 for a network that sees nothing.
        noise: standard deviation added to them.
        ends_only: whether only the first and the last cloud are seen.
        has_correspondence: whether row n of every cloud is the same point of the body.
        queries: labelled queries at t = 0, and as many at one random time; 0 for none.
        near_share: share of them that lies near the surface; the others are uniform.
        trajectories: points whose way through all frames is known; 0 for none.
        sequences: how many sequences of the split to use, from the first; None for all.
    """

    frames: int = 17
    points: int = 300
    noise: float = 0.001
    ends_only: bool = False
    has_correspondence: bool = True
    queries: int = 512
    near_share: float = 0.0
    trajectories: int = 0
    sequences: int | None = None

    def __post_init__(self) -> None:
        if min(self.points, self.queries, self.trajectories) < 0 or self.frames < 2:
            raise ValueError("points, queries and trajectories are not negative; a sequence has two frames")
        if not (self.queries or self.trajectories):
            raise ValueError("nothing to train on: ask for queries, trajectories or both")
        if not 0 <= self.near_share <= 1:
            raise ValueError("near_share lies in [0, 1]")


@dataclass(frozen=True)
class TimedQueries:
    """Labelled queries of a batch of sequences, each sequence at one time.

    Attributes:
        queries: (B, Q, 3) float32; occupancy: (B, Q) float32 of 0 and 1; times: (B,) float32 in [0, 1].
    """

    queries: NDArray[np.float32]
    occupancy: NDArray[np.float32]
    times: NDArray[np.float32]


@dataclass(frozen=True)
class SequenceArrays:
    """A batch of sequences.

    Attributes:
        inputs: (B, T, N, 3) float32 clouds, of which T is 2 where only the ends are seen; (B, 1, 0) for nothing.
        first: at t = 0; later: at a random frame of each sequence; None without queries.
        trajectories: (B, L, M, 3) float32 of all frames, or None.
        seed: for whatever training draws itself.
    """

    inputs: NDArray[np.float32]
    first: TimedQueries | None
    later: TimedQueries | None
    trajectories: NDArray[np.float32] | None
    seed: int


def draw_rows(
    available: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random rows of a shuffled array, out of as few of its blocks as hold them.

    Args:
        available: rows that the array has; count: rows to draw; some come twice if there are fewer.
        rng: draws the blocks and the rows.

    Returns:
        numbers of blocks, and (count,) rows of these blocks laid one behind the other.
    """
    whole, needed = available // BLOCK, -(-count // BLOCK)
    if whole >= needed:
        return rng.permutation(whole)[:needed], rng.permutation(needed * BLOCK)[:count]
    return np.arange(-(-available // BLOCK)), np.resize(rng.permutation(available), count)


class _Samples:
    """Points and labelled queries of the shapes of one split."""

    def __init__(self, path: Path, split: str, layout: DatasetLayout, near_share: float, asks: bool) -> None:
        self.layout, self.near_share = layout, near_share
        kinds = (("uniform", 1 - near_share), ("near", near_share))
        used = [kind for kind, share in kinds if share > 0 and asks]
        absent = [kind for kind in used if not getattr(layout, f"{kind}_queries")]
        if absent:
            raise DatasetError(
                f"{path}: holds no {' and '.join(absent)} queries with occupancy; make a dataset that does with "
                "`tessera preprocess meshes`, `shapenet` or `rooms` (`bodies` or `humans` for sequences)"
            )
        group = zarr.open_group(str(path), mode="r")
        wanted = rows(group, "valid") & (rows(group, "split") == SPLITS.index(split))
        self.shapes = np.flatnonzero(wanted)
        if not len(self.shapes):
            raise DatasetError(
                f"{path}: no shapes in split '{split}'; preprocess more, or resume an unfinished run"
            )
        self.point_count = rows(group, "point_count")
        self.has_scan_noise = rows(group, "has_scan_noise")
        self._points = BlockReader(path, layout, "points")
        self._queries = {kind: BlockReader(path, layout, f"{kind}_queries") for kind in used}
        self._occupancy = {kind: BlockReader(path, layout, f"{kind}_occupancy") for kind in used}

    def points(
        self, shape: int, count: int, rng: np.random.Generator, times: tuple[int, ...] | None = None
    ) -> NDArray[np.float32]:
        """(count, 3) random points of a still shape; (T, count, 3) of a sequence, the same at all times."""
        blocks, chosen = draw_rows(int(self.point_count[shape]), count, rng)
        clouds = [
            np.concatenate([self._points.read(shape, *at, block).reshape(BLOCK, 3) for block in blocks])
            for at in ([()] if times is None else [(time,) for time in times])
        ]
        return clouds[0][chosen] if times is None else np.stack([cloud[chosen] for cloud in clouds])

    def queries(
        self, shape: int, count: int, rng: np.random.Generator, time: tuple[int, ...] = ()
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(count, 3) random queries, uniform and near the surface, and (count,) their occupancy."""
        near = round(count * self.near_share)
        asked, occupied = [], []
        for kind, wanted in (("uniform", count - near), ("near", near)):
            if wanted:
                available = getattr(self.layout, f"{kind}_queries")
                blocks, chosen = draw_rows(available, wanted, rng)
                positions, labels = self._labelled(kind, shape, blocks, time)
                asked.append(positions[chosen])
                occupied.append(labels[chosen])
        return np.concatenate(asked), np.concatenate(occupied)

    def all_queries(self, shape: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Every query of a still shape, of the kinds in use, and its occupancy."""
        parts = [
            self._labelled(kind, shape, np.arange(getattr(self.layout, f"{kind}_queries") // BLOCK), ())
            for kind in self._queries
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _labelled(
        self, kind: str, shape: int, blocks: NDArray[np.int64], time: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        read, labels = self._queries[kind].read, self._occupancy[kind].read
        positions = [read(shape, *time, block).reshape(BLOCK, 3) for block in blocks]
        bits = np.concatenate([labels(shape, *time, block).reshape(-1) for block in blocks])
        return np.concatenate(positions), np.unpackbits(bits).astype(np.float32)


class ShapeSource:
    """Draws batches of still shapes from one split; batch `step` of rank `rank` depends on the seed alone.

    Raises:
        DatasetError: if the store is not a dataset, lacks what the network takes, or the split is empty.
    """

    def __init__(self, path: Path, split: str, config: ShapeConfig, seed: int) -> None:
        path = Path(path)
        layout, _ = read_layout(path)
        if layout.frames:
            raise DatasetError(
                f"{path}: holds sequences, but this network learns still shapes; make a dataset with "
                "`tessera preprocess meshes`, `shapenet` or `rooms`"
            )
        self.config, self.seed = config, seed
        self._samples = _Samples(path, split, layout, config.near_share, asks=True)
        self._extra: BlockReader | None = None
        if config.inputs == "voxels":
            if layout.voxel_side != config.voxel_side:
                found = f"voxel grids of side {layout.voxel_side}" if layout.voxel_side else "no voxel grids"
                raise DatasetError(
                    f"{path}: holds {found}, but this network takes voxels, {config.voxel_side} along each side; "
                    "preprocess the meshes again with --voxels"
                )
            self._extra = BlockReader(path, layout, "voxels")
        if config.inputs == "views":
            if not layout.views:
                raise DatasetError(
                    f"{path}: holds no rendered views, but this network takes pictures; "
                    "preprocess the meshes again with --views"
                )
            self._extra = BlockReader(path, layout, "view_rgb")
        self._views = layout.views

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Numbers of the split's shapes in the store."""
        return self._samples.shapes

    def batch(self, step: int, batch_size: int, rank: int = 0) -> ShapeArrays:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step, rank])
        seed = int(rng.integers(2**62))
        numbers = rng.integers(len(self.shapes), size=batch_size)
        if self.config.inputs == "crops":
            crops = [self._crop(int(self.shapes[number]), rng) for number in numbers]
            inputs, queries, occupancy, lower, upper = (np.stack(part) for part in zip(*crops, strict=True))
            return ShapeArrays(inputs, queries, occupancy, lower, upper, seed)
        seen, asked, occupied = [], [], []
        for number in numbers:
            shape = int(self.shapes[number])
            seen.append(self._input(shape, int(number), rng))
            positions, labels = self._samples.queries(shape, self.config.queries, rng)
            asked.append(positions)
            occupied.append(labels)
        return ShapeArrays(np.stack(seen), np.stack(asked), np.stack(occupied), None, None, seed)

    def _input(self, shape: int, number: int, rng: np.random.Generator) -> NDArray[Any]:
        match self.config.inputs:
            case "points":
                return self._cloud(shape, rng)
            case "partial":
                return self._partial_cloud(shape, rng)
            case "voxels":
                assert self._extra is not None
                return np.unpackbits(self._extra.read(shape), axis=-1).astype(np.float32)
            case "views":
                assert self._extra is not None
                picture = self._extra.read(shape, int(rng.integers(self._views)))[0]
                return _scaled(picture, self.config.picture_side)
            case "index":
                return np.array(number, np.int64)
            case _:
                return np.zeros(0, np.float32)

    def _cloud(self, shape: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return self._with_noise(self._samples.points(shape, self.config.points, rng), shape, rng)

    def _partial_cloud(self, shape: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """What lies below a random plane across a random axis, as Peng et al. 2020 cut off theirs."""
        config = self.config
        cloud = self._samples.points(shape, 3 * config.points, rng)
        along = cloud[:, rng.integers(3)]
        low, extent = along.min(), np.ptp(along)
        kept = np.flatnonzero(along - low <= rng.uniform(config.kept_share, 1) * extent)
        return self._with_noise(cloud[np.resize(rng.permutation(kept), config.points)], shape, rng)

    def _crop(self, shape: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """A cloud, queries in a box that holds one of its points, their labels, and the corners of the crop.

        Queries of a box are few: some come twice where it holds fewer than are asked.
        """
        config = self.config
        cloud = self._cloud(shape, rng)
        asked, occupied = self._samples.all_queries(shape)
        for _ in range(CROP_ATTEMPTS):
            shift = rng.uniform(-0.5, 0.5, 3) * config.crop_query_side
            centre = (cloud[rng.integers(len(cloud))] + shift).astype(np.float32)
            inside = np.flatnonzero((np.abs(asked - centre) < config.crop_query_side / 2).all(axis=1))
            if len(inside):
                break
        else:
            raise DatasetError(
                f"shape {shape}: holds too few queries for boxes of {config.crop_query_side:g}; preprocess rooms"
            )
        chosen = np.resize(rng.permutation(inside), config.queries)
        half = np.float32(config.crop_side / 2)
        return cloud, asked[chosen], occupied[chosen], centre - half, centre + half

    def _with_noise(
        self, points: NDArray[np.float32], shape: int, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        if self._samples.has_scan_noise[shape]:
            return points
        return points + np.float32(self.config.noise) * rng.standard_normal(points.shape, np.float32)


class SequenceSource:
    """Draws batches of sequences from one split; batch `step` of rank `rank` depends on the seed alone.

    Raises:
        DatasetError: if the store is not a dataset of sequences of so many frames, or the split is empty.
    """

    def __init__(self, path: Path, split: str, config: SequenceConfig, seed: int) -> None:
        path = Path(path)
        layout, _ = read_layout(path)
        if layout.frames != config.frames:
            found = f"sequences of {layout.frames} frames" if layout.frames else "still shapes"
            raise DatasetError(
                f"{path}: holds {found}, but this network learns sequences of {config.frames} frames; preprocess "
                f"`bodies` or `humans` with --frames {config.frames}"
            )
        self.config, self.seed = config, seed
        self._samples = _Samples(path, split, layout, config.near_share, asks=config.queries > 0)

    @property
    def sequences(self) -> NDArray[np.int64]:
        """Numbers of the sequences in the store that batches come from."""
        return self._samples.shapes[: self.config.sequences]

    def batch(self, step: int, batch_size: int, rank: int = 0) -> SequenceArrays:
        """Batch number `step`."""
        config = self.config
        rng = np.random.default_rng([self.seed, step, rank])
        seed = int(rng.integers(2**62))
        chosen = rng.choice(self.sequences, batch_size)
        later_frames = rng.integers(config.frames, size=batch_size)
        every = tuple(range(config.frames))
        inputs = np.stack([self._input(int(sequence), rng) for sequence in chosen])
        first = later = trajectories = None
        if config.queries:
            first = self._asked(chosen, np.zeros(batch_size, np.int64), rng)
            later = self._asked(chosen, later_frames, rng)
        if config.trajectories:
            tracks = [self._samples.points(int(row), config.trajectories, rng, every) for row in chosen]
            trajectories = np.stack(tracks)
        return SequenceArrays(inputs, first, later, trajectories, seed)

    def _input(self, sequence: int, rng: np.random.Generator) -> NDArray[np.float32]:
        config = self.config
        if not config.points:
            return np.zeros((1, 0), np.float32)
        times = (0, config.frames - 1) if config.ends_only else tuple(range(config.frames))
        if config.has_correspondence:
            clouds = self._samples.points(sequence, config.points, rng, times)
        else:
            parts = [self._samples.points(sequence, config.points, rng, (time,)) for time in times]
            clouds = np.concatenate(parts)
        return clouds + np.float32(config.noise) * rng.standard_normal(clouds.shape, np.float32)

    def _asked(
        self, sequences: NDArray[np.int64], frames: NDArray[np.int64], rng: np.random.Generator
    ) -> TimedQueries:
        drawn = [
            self._samples.queries(int(sequence), self.config.queries, rng, (int(frame),))
            for sequence, frame in zip(sequences, frames, strict=True)
        ]
        queries, occupancy = (np.stack(part) for part in zip(*drawn, strict=True))
        return TimedQueries(queries, occupancy, (frames / (self.config.frames - 1)).astype(np.float32))


def _scaled(picture: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """(H, W, 3) bytes to (3, side, side) in [0, 1], bilinear."""
    scaled = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
    return np.moveaxis(np.asarray(scaled, np.float32) / np.float32(255), -1, 0)
