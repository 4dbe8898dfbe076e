"""A scan of any size to points bucketed by tile, one chunk at a time; `scan_summary` is the pass before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.reconstruction.crop_field import thin_points
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.scan_summary import Sides, finite_chunks
from pipeline.reconstruction.sealed_tables import Columns
from pipeline.reconstruction.store import RunStore
from pipeline.scan_reading import ScanSet
from preprocessing.scan_files import ScanChunk
from preprocessing.scan_files.chunks import join_chunks

COLOR_NAMES = ("red", "green", "blue")
DIRECTION_NAMES = ("ux", "uy", "uz")
MOST_PENDING = 4_000_000  # points of a coarse level that wait to be thinned together


@dataclass(frozen=True)
class BucketContents:
    """What the bucketed points carry beside their positions.

    Attributes:
        has_colors: red, green, blue.
        sides: `ux, uy, uz`: unit vectors toward the station that saw the point, or its normal; None for neither.
        drop_origin: points exactly at the origin are left out.
    """

    has_colors: bool
    sides: Sides = None
    drop_origin: bool = False


def bucket_points(
    scan: ScanSet, plans: Sequence[ScenePlan], store: RunStore, contents: BucketContents
) -> None:
    """Write the points of every level of the pyramid, bucketed by the level's tiles.

    The finest level has all points. A coarser one has at most a few for each cell of its lattice, thinned as they come;
    what is pending of it stays in memory up to `MOST_PENDING` points, so a cell may get more in a scan of many.

    The index of the finest level is written last: its presence says that all points are there.
    """
    finest = _Buckets(plans[0], store, contents)
    coarser = [_Buckets(plan, store, replace(contents, has_colors=False)) for plan in plans[1:]]
    for chunk, _ in finite_chunks(scan, contents.drop_origin):
        if len(chunk.points):
            finest.write(chunk)
            for level in coarser:
                chunk = level.add(chunk)
    for level in (*coarser, finest):
        level.finish()


class _Buckets:
    """The points of one level on their way into its files: sorted by tile, one row group for each tile."""

    def __init__(self, plan: ScenePlan, store: RunStore, contents: BucketContents) -> None:
        self.plan, self.store, self.contents = plan, store, contents
        self.index: list[tuple[int, int, int, int]] = []
        self.files = 0
        self.pending: list[ScanChunk] = []

    def add(self, chunk: ScanChunk) -> ScanChunk:
        """Thin a chunk to this level's lattice and keep it for later; returns it, for the next level to thin."""
        thinned = self._thinned(chunk)
        self.pending.append(thinned)
        if sum(len(part.points) for part in self.pending) > MOST_PENDING:
            joined = self._thinned(join_chunks(self.pending))
            self.pending = [joined]
            if len(joined.points) > MOST_PENDING // 2:
                self.write(joined)
                self.pending = []
        return thinned

    def finish(self) -> None:
        """Write what is pending, then the index."""
        if self.pending:
            self.write(self._thinned(join_chunks(self.pending)))
        columns = np.asarray(self.index, dtype=np.int64).reshape(-1, 4).T
        names = ("tile", "chunk", "row_group", "count")
        self.store.write_table(index_file(self.plan.level), [dict(zip(names, columns, strict=True))])

    def write(self, chunk: ScanChunk) -> None:
        """Write a chunk as one file."""
        tiles = self.plan.tile_of_points(chunk.points)
        order = np.argsort(tiles, kind="stable")
        present, starts = np.unique(tiles[order], return_index=True)
        groups = []
        for group, rows in enumerate(np.split(order, starts[1:])):
            groups.append(_point_table(chunk, rows, self.contents))
            self.index.append((int(present[group]), self.files, group, len(rows)))
        self.store.write_table(chunk_file(self.plan.level, self.files), groups)
        self.files += 1

    def _thinned(self, chunk: ScanChunk) -> ScanChunk:
        kept = np.zeros(len(chunk.points), np.bool_)
        kept[thin_points(self.plan.voxel_position(chunk.points) * self.plan.cells_per_voxel)] = True
        return chunk.only(kept, "thinned")


def _point_table(chunk: ScanChunk, rows: NDArray[np.int64], contents: BucketContents) -> Columns:
    columns: dict[str, NDArray[Any]] = {axis: chunk.points[rows, number] for number, axis in enumerate("xyz")}
    if contents.has_colors:
        assert chunk.colors is not None
        columns |= {name: chunk.colors[rows, number] for number, name in enumerate(COLOR_NAMES)}
    if contents.sides is not None:
        directions = chunk.directions if contents.sides == "stations" else chunk.normals
        assert directions is not None
        units = directions[rows] / np.maximum(np.linalg.norm(directions[rows], axis=1, keepdims=True), 1e-30)
        units = np.nan_to_num(units, posinf=0.0, neginf=0.0).astype(np.float32)
        columns |= {name: units[:, number] for number, name in enumerate(DIRECTION_NAMES)}
    return columns


def index_file(level: int = 0) -> str:
    """Name of the index (tile, chunk, row group, count) of a level's points."""
    return f"{_folder(level)}/index.parquet"


def chunk_file(level: int, number: int) -> str:
    """Name of one of the files that hold a level's points."""
    return f"{_folder(level)}/chunk-{number:06d}.parquet"


def _folder(level: int) -> str:
    """Where a level's points stay for good: a tile that is lost after a run needs those of all levels."""
    return "points" if level == 0 else f"points/level-{level}"


def occupied_tiles(store: RunStore, level: int = 0) -> NDArray[np.int64]:
    """Tiles of a level that hold points, ascending."""
    with store.open_table(index_file(level)) as file:
        return np.unique(file.read(columns=["tile"])["tile"])


@dataclass(frozen=True)
class BucketedPoints:
    """Points of some tiles, in the scan's order.

    Attributes:
        positions: (N, 3) float64, world.
        colors: (N, 3) uint8; None where they were not asked for.
        directions: (N, 3) float32 unit vectors toward the scanner, or normals; zero where a point has none.
    """

    positions: NDArray[np.float64]
    colors: NDArray[np.uint8] | None
    directions: NDArray[np.float32]


def read_points(
    store: RunStore, tiles: list[int], level: int = 0, has_colors: bool = False
) -> BucketedPoints:
    """The points of some tiles of a level; colors of the finest level only, and only of scans that have them."""
    with store.open_table(index_file(level)) as file:
        index = file.read()
    wanted = np.isin(index["tile"], tiles)
    chunks, groups = index["chunk"][wanted], index["row_group"][wanted]
    points, colors = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    directions = [np.zeros((0, 3), np.float32)]
    for chunk in np.unique(chunks):
        with store.open_table(chunk_file(level, int(chunk))) as file:
            table = file.read(sorted(groups[chunks == chunk].tolist()))
        points.append(_columns(table, "xyz"))
        has_directions = DIRECTION_NAMES[0] in table
        directions.append(
            _columns(table, DIRECTION_NAMES) if has_directions else np.zeros((len(table["x"]), 3), np.float32)
        )
        if has_colors:
            colors.append(_columns(table, COLOR_NAMES))
    return BucketedPoints(
        np.concatenate(points), np.concatenate(colors) if has_colors else None, np.concatenate(directions)
    )


def _columns(table: Columns, names: Sequence[str]) -> NDArray[Any]:
    return np.stack([table[name] for name in names], axis=1)
