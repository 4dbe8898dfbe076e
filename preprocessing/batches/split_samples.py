"""Points, labeled queries and pictures of the shapes of one split, drawn from a dataset block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from preprocessing.dataset import BLOCK, SPLITS, BlockReader, DatasetLayout, check_complete, rows
from preprocessing.errors import DatasetError


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


def open_split(path: Path, split: str, layout: DatasetLayout) -> tuple[zarr.Group, NDArray[np.int64]]:
    """A dataset's arrays, and the numbers of the shapes of one split.

    Raises:
        DatasetError: if the dataset is not complete, or the split is empty.
    """
    check_complete(path, layout)
    group = zarr.open_group(str(path), mode="r")
    shapes = np.flatnonzero(rows(group, "valid") & (rows(group, "split") == SPLITS.index(split)))
    if not len(shapes):
        raise DatasetError(
            f"{path}: no shapes in split '{split}'; preprocess more, or resume an unfinished run"
        )
    return group, shapes


class SplitSamples:
    """Points and labeled queries of the shapes of one split.

    Args:
        path, layout: of the dataset.
        split: "train", "val" or "test".
        near_share: share of the queries that lies near the surface; the others are uniform.
        asks: whether queries are drawn at all.

    Raises:
        DatasetError: if the dataset has no such queries, or the split is empty.
    """

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
        group, self.shapes = open_split(path, split, layout)
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
                positions, labels = self._labeled(kind, shape, blocks, time)
                asked.append(positions[chosen])
                occupied.append(labels[chosen])
        return np.concatenate(asked), np.concatenate(occupied)

    def all_queries(self, shape: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Every query of a still shape, of the kinds in use, and its occupancy."""
        parts = [
            self._labeled(kind, shape, np.arange(getattr(self.layout, f"{kind}_queries") // BLOCK), ())
            for kind in self._queries
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _labeled(
        self, kind: str, shape: int, blocks: NDArray[np.int64], time: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        read, labels = self._queries[kind].read, self._occupancy[kind].read
        positions = [read(shape, *time, block).reshape(BLOCK, 3) for block in blocks]
        bits = np.concatenate([labels(shape, *time, block).reshape(-1) for block in blocks])
        return np.concatenate(positions), np.unpackbits(bits).astype(np.float32)


class SplitPictures:
    """Pictures of shapes by a random camera of theirs.

    Args:
        path, layout: of the dataset.
        side: width and height that pictures are scaled to.

    Raises:
        DatasetError: if the dataset has no pictures.
    """

    def __init__(self, path: Path, layout: DatasetLayout, side: int) -> None:
        if not layout.views:
            raise DatasetError(
                f"{path}: holds no rendered views, but this network takes pictures; preprocess again with --views"
            )
        self.layout, self.side = layout, side
        self._pictures = BlockReader(path, layout, "view_rgb")

    def draw(self, shape: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(3, side, side) of a still shape, (T, 3, side, side) of a sequence by one camera, in [0, 1]."""
        view = int(rng.integers(self.layout.views))
        if not self.layout.frames:
            return _scaled(self._pictures.read(shape, view)[0], self.side)
        moments = self._pictures.read(shape, 0, view)[:, 0]
        return np.stack([_scaled(moment, self.side) for moment in moments])


def _scaled(picture: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """(H, W, 3) bytes to (3, side, side) in [0, 1], bilinear."""
    scaled = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
    return np.moveaxis(np.asarray(scaled, np.float32) / np.float32(255), -1, 0)
