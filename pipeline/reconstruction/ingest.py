"""A scan file of any size to points bucketed by tile, in passes that hold one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.spacing import PROBES, VOXELS_PER_SPACING, median_spacing
from pipeline.reconstruction.store import RunStore
from pipeline.scan_reading import scan_chunks
from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk

FEWEST_POINTS = 100
INDEX = "points/index.parquet"


@dataclass(frozen=True)
class ScanSummary:
    """What the first pass learns of a scan.

    Attributes:
        low, high: corners of the bounding box, metres.
        points: number of usable points.
        dropped: number of points that are not finite.
        has_colors: whether points carry colours.
        probes: (P, 3) evenly drawn points, for the spacing.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    points: int
    dropped: int
    has_colors: bool
    probes: NDArray[np.float64]


def finite_chunks(scan: Path) -> Iterator[tuple[ScanChunk, int]]:
    """Chunks of a scan without their non-finite points, and how many of those there were."""
    for chunk in scan_chunks(scan):
        usable: NDArray[np.bool_] = np.asarray(np.isfinite(chunk.points).all(axis=1))
        dropped = int(len(usable) - usable.sum())
        if dropped:
            chunk = ScanChunk(
                chunk.points[usable],
                None if chunk.normals is None else chunk.normals[usable],
                None if chunk.colors is None else chunk.colors[usable],
            )
        yield chunk, dropped


def summarise_scan(scan: Path, drop_invalid: bool) -> ScanSummary:
    """Read a scan once: bounds, counts, and a reservoir of probes.

    Raises:
        ScanError: if the file cannot be read, holds points that are not finite (and they are not to be
            dropped), too few points, or no extent.
    """
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    total = dropped = 0
    has_colors = False
    probes: list[NDArray[np.float64]] = []
    priorities: list[NDArray[np.float64]] = []
    rng = np.random.default_rng(0)
    for chunk, invalid in finite_chunks(scan):
        dropped += invalid
        if not len(chunk.points):
            continue
        total += len(chunk.points)
        has_colors |= chunk.colors is not None
        low, high = np.minimum(low, chunk.points.min(axis=0)), np.maximum(high, chunk.points.max(axis=0))
        priority = rng.random(len(chunk.points))
        chosen = np.argsort(priority)[:PROBES]
        probes.append(chunk.points[chosen])
        priorities.append(priority[chosen])
        if len(probes) > 16:
            probes, priorities = _keep_lowest(probes, priorities)
    name = scan.name
    if dropped and not drop_invalid:
        raise ScanError(
            f"{name}: {dropped:,} of {total + dropped:,} points are not finite (NaN or infinity); "
            "pass --drop-invalid to ignore them"
        )
    if total == 0:
        raise ScanError(f"{name}: holds no points; check that the export finished")
    if total < FEWEST_POINTS:
        raise ScanError(
            f"{name}: holds {total} point{'s' * (total > 1)}; a surface needs at least {FEWEST_POINTS}"
        )
    if (high - low).max() == 0:
        raise ScanError(f"{name}: all {total:,} points lie at the same position {tuple(low.tolist())}")
    kept, _ = _keep_lowest(probes, priorities)
    return ScanSummary(low, high, total, dropped, has_colors, kept[0])


def _keep_lowest(
    probes: list[NDArray[np.float64]], priorities: list[NDArray[np.float64]]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    every, priority = np.concatenate(probes), np.concatenate(priorities)
    chosen = np.argsort(priority)[:PROBES]
    return [every[chosen]], [priority[chosen]]


def default_voxel_size(scan: Path, summary: ScanSummary) -> float:
    """Three times the scan's median point spacing, rounded to two digits.

    Raises:
        ScanError: if the points are too few or too repeated to have a spacing.
    """
    spacing = median_spacing(
        (chunk.points for chunk, _ in finite_chunks(scan) if len(chunk.points)), summary.probes
    )
    if spacing <= 0:
        raise ScanError(
            f"{scan.name}: the points repeat too few positions to measure a spacing; pass --voxel-size"
        )
    return float(f"{VOXELS_PER_SPACING * spacing:.2g}")


def bucket_points(scan: Path, plan: ScenePlan, store: RunStore) -> None:
    """Write every point into `points/`, each chunk sorted by tile with one row group for each tile.

    The index (tile, chunk, row group, count) is written last: its presence says that all points are there.
    """
    index: list[tuple[int, int, int, int]] = []
    for number, (chunk, _) in enumerate(finite_chunks(scan)):
        if not len(chunk.points):
            continue
        tiles = plan.tile_of_points(chunk.points)
        order = np.argsort(tiles, kind="stable")
        present, starts = np.unique(tiles[order], return_index=True)
        groups = []
        for group, rows in enumerate(np.split(order, starts[1:])):
            groups.append(_point_table(chunk, rows))
            index.append((int(present[group]), number, group, len(rows)))
        store.write_tables(f"points/chunk-{number:06d}.parquet", groups)
    columns = np.asarray(index, dtype=np.int64).reshape(-1, 4).T
    store.write_tables(
        INDEX, [pa.table(dict(zip(("tile", "chunk", "row_group", "count"), columns, strict=True)))]
    )


def _point_table(chunk: ScanChunk, rows: NDArray[np.int64]) -> pa.Table:
    columns = {axis: chunk.points[rows, number] for number, axis in enumerate("xyz")}
    if chunk.colors is not None:
        columns |= {name: chunk.colors[rows, number] for number, name in enumerate(("red", "green", "blue"))}
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
            colors.append(np.stack([table[name].to_numpy() for name in ("red", "green", "blue")], axis=1))
    return np.concatenate(points), np.concatenate(colors) if has_colors else None
