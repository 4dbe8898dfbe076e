"""A scan of any size to points bucketed by tile, one chunk at a time; `scan_summary` is the pass before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.scan_summary import Sides, finite_chunks
from pipeline.reconstruction.store import RunStore
from pipeline.scan_reading import ScanSet
from preprocessing.scan_files import ScanChunk

INDEX = "points/index.parquet"
COLOR_NAMES = ("red", "green", "blue")
DIRECTION_NAMES = ("ux", "uy", "uz")


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


def bucket_points(scan: ScanSet, plan: ScenePlan, store: RunStore, contents: BucketContents) -> None:
    """Write every point into `points/`, each chunk sorted by tile with one row group for each tile.

    The index (tile, chunk, row group, count) is written last: its presence says that all points are there.
    """
    index: list[tuple[int, int, int, int]] = []
    for number, (chunk, _) in enumerate(finite_chunks(scan, contents.drop_origin)):
        if not len(chunk.points):
            continue
        tiles = plan.tile_of_points(chunk.points)
        order = np.argsort(tiles, kind="stable")
        present, starts = np.unique(tiles[order], return_index=True)
        groups = []
        for group, rows in enumerate(np.split(order, starts[1:])):
            groups.append(_point_table(chunk, rows, contents))
            index.append((int(present[group]), number, group, len(rows)))
        store.write_tables(f"points/chunk-{number:06d}.parquet", groups)
    columns = np.asarray(index, dtype=np.int64).reshape(-1, 4).T
    store.write_tables(
        INDEX, [pa.table(dict(zip(("tile", "chunk", "row_group", "count"), columns, strict=True)))]
    )


def _point_table(chunk: ScanChunk, rows: NDArray[np.int64], contents: BucketContents) -> pa.Table:
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
    return pa.table(columns)


def occupied_tiles(store: RunStore) -> NDArray[np.int64]:
    """Tiles that hold points, ascending."""
    with store.open_table(INDEX) as file:
        return np.unique(file.read(["tile"])["tile"].to_numpy())


def read_points(
    store: RunStore, tiles: list[int], has_colors: bool
) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    """World positions (N, 3) and colours (N, 3) of the points of some tiles, in the scan's order."""
    with store.open_table(INDEX) as file:
        index = file.read()
    wanted = np.isin(index["tile"].to_numpy(), tiles)
    chunks, groups = index["chunk"].to_numpy()[wanted], index["row_group"].to_numpy()[wanted]
    points, colors = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    for chunk in np.unique(chunks):
        with store.open_table(f"points/chunk-{chunk:06d}.parquet") as file:
            table = file.read_row_groups(sorted(groups[chunks == chunk].tolist()))
        points.append(np.stack([table[axis].to_numpy() for axis in "xyz"], axis=1))
        if has_colors:
            colors.append(np.stack([table[name].to_numpy() for name in COLOR_NAMES], axis=1))
    return np.concatenate(points), np.concatenate(colors) if has_colors else None


def read_directions(store: RunStore, tiles: list[int]) -> NDArray[np.float32]:
    """Directions (N, 3) of the points that `read_points` gives for the same tiles, in its order.

    Unit vectors toward the scanner, or normals; zero where a point has none. Only of runs with
    `BucketContents.sides`.
    """
    with store.open_table(INDEX) as file:
        index = file.read()
    wanted = np.isin(index["tile"].to_numpy(), tiles)
    chunks, groups = index["chunk"].to_numpy()[wanted], index["row_group"].to_numpy()[wanted]
    found = [np.zeros((0, 3), np.float32)]
    for chunk in np.unique(chunks):
        with store.open_table(f"points/chunk-{chunk:06d}.parquet") as file:
            table = file.read_row_groups(
                sorted(groups[chunks == chunk].tolist()), columns=list(DIRECTION_NAMES)
            )
        found.append(np.stack([table[name].to_numpy() for name in DIRECTION_NAMES], axis=1))
    return np.concatenate(found)
