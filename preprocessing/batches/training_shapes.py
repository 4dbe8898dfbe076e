"""Random training batches of single shapes, read block by block from a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foundation.errors import SettingError
from foundation.settings import check_choices
from preprocessing.batches.split_samples import SplitPictures, SplitSamples
from preprocessing.dataset import BlockReader, read_layout
from preprocessing.errors import DatasetError

CROP_ATTEMPTS = 1000

ShapeInput = Literal["points", "partial", "crops", "voxels", "image", "shape", "nothing"]


@dataclass(frozen=True)
class ShapeConfig:
    """What a network sees of a shape, and what it is asked; lengths in sides of the unit cube.

    Attributes:
        inputs: a noisy cloud ("points"), one cut off along an axis ("partial"), a cloud with the box of a crop
            ("crops"), an occupancy grid ("voxels"), a picture ("image"), the shape's number ("shape") or "nothing".
        points: of a cloud.
        noise: standard deviation added to points that carry no scanner's noise yet.
        kept_share: of the cloud's extent along a random axis, at least, of a partial cloud.
        queries: labeled queries of one shape.
        near_share: share of them that lies near the surface; the others are uniform.
        voxel_side: side of the occupancy grid that the network takes.
        picture_side: width and height that pictures are scaled to.
        crop_side: side of the box that the network sees of a crop.
        crop_query_side: side of the box in its middle that is asked.
    """

    inputs: ShapeInput = "points"
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
        check_choices(self)
        if min(self.points, self.queries) < 1:
            raise SettingError("points and queries must be at least 1")
        if not (0 <= self.near_share <= 1 and 0 < self.kept_share <= 1):
            raise SettingError("near_share lies in [0, 1] and kept_share in (0, 1]")


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
        self._samples = SplitSamples(path, split, layout, config.near_share, asks=True)
        if config.inputs == "voxels":
            if layout.voxel_side != config.voxel_side:
                found = f"voxel grids of side {layout.voxel_side}" if layout.voxel_side else "no voxel grids"
                raise DatasetError(
                    f"{path}: holds {found}, but this network takes voxels, {config.voxel_side} along each side; "
                    "preprocess the meshes again with --voxels"
                )
            self._voxels = BlockReader(path, layout, "voxels")
        if config.inputs == "image":
            self._pictures = SplitPictures(path, layout, config.picture_side)

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Numbers of the split's shapes in the store."""
        return self._samples.shapes

    def batch(self, step: int, batch_size: int, rank: int = 0) -> ShapeArrays:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step, rank])
        seed = int(rng.integers(2**62))
        numbers = rng.integers(len(self.shapes), size=batch_size)
        drawn: list[tuple[NDArray[Any], ...]] = []
        for number in numbers:
            shape = int(self.shapes[number])
            if self.config.inputs == "crops":
                drawn.append(self._crop(shape, rng))
            else:
                seen = self._input(shape, int(number), rng)
                drawn.append((seen, *self._samples.queries(shape, self.config.queries, rng)))
        inputs, queries, occupancy, *corners = (np.stack(part) for part in zip(*drawn, strict=True))
        lower, upper = corners or (None, None)
        return ShapeArrays(inputs, queries, occupancy, lower, upper, seed)

    def _input(self, shape: int, number: int, rng: np.random.Generator) -> NDArray[Any]:
        match self.config.inputs:
            case "points":
                return self._cloud(shape, rng)
            case "partial":
                return self._partial_cloud(shape, rng)
            case "voxels":
                return np.unpackbits(self._voxels.read(shape), axis=-1).astype(np.float32)
            case "image":
                return self._pictures.draw(shape, rng)
            case "shape":
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
            center = (cloud[rng.integers(len(cloud))] + shift).astype(np.float32)
            inside = np.flatnonzero((np.abs(asked - center) < config.crop_query_side / 2).all(axis=1))
            if len(inside):
                break
        else:
            raise DatasetError(
                f"shape {shape}: holds too few queries for boxes of {config.crop_query_side:g}; preprocess rooms"
            )
        chosen = np.resize(rng.permutation(inside), config.queries)
        half = np.float32(config.crop_side / 2)
        return cloud, asked[chosen], occupied[chosen], center - half, center + half

    def _with_noise(
        self, points: NDArray[np.float32], shape: int, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        if self._samples.has_scan_noise[shape]:
            return points
        return points + np.float32(self.config.noise) * rng.standard_normal(points.shape, np.float32)


def training_source(path: Path, seed: int, **settings: Any) -> ShapeSource:
    """The training split with the given settings of `ShapeConfig`, as `python -m convonet.fit --source` wants it."""
    return ShapeSource(path, "train", ShapeConfig(**settings), seed)
