"""The two kinds of work on a tile, as plain functions of (store, plan, tile): what Ray tasks run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from convonet.mise import SampledField, refine
from pipeline.reconstruction.crop_field import QUERY_BATCH, CropField, network_on, thin_points
from pipeline.reconstruction.field_store import field_file, read_field, write_field
from pipeline.reconstruction.ingest import read_points
from pipeline.reconstruction.merge import vertices_file, write_tile
from pipeline.reconstruction.plan import MISE, ScenePlan
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.tile_surface import tile_surface

REACH_VOXELS = 16  # a crop is encoded if a scan point lies this near to its tile; farther away all is free


@dataclass(frozen=True)
class TileJob:
    """What every task of a run needs to know.

    Attributes:
        store: the run directory.
        plan: the scene's plan.
        model: weights file.
        threshold: occupancy probability at the surface.
        device: auto, cpu or cuda.
        has_colors: whether the scan's points carry colours.
    """

    store: RunStore
    plan: ScenePlan
    model: str
    threshold: float
    device: str
    has_colors: bool


@dataclass(frozen=True)
class TileRecord:
    """What a task returns: small numbers only.

    Attributes:
        tile: which tile.
        was_finished: whether its file was there already.
        seconds: time spent.
        peak_memory_bytes: largest resident size of the worker process so far.
    """

    tile: int
    was_finished: bool
    seconds: float
    peak_memory_bytes: int


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):
        return int(info.peak_wset)
    import resource

    return max(int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024, int(info.rss))


def sample_tile(job: TileJob, tile: int) -> TileRecord:
    """Encode a tile's crop, refine its field, write it. Does nothing if the file is there already."""
    started = time.monotonic()
    store, plan = job.store, job.plan
    name = field_file(tile)
    was_finished = store.exists(name)
    if not was_finished:
        field = _sample(job, tile)
        write_field(store, plan, tile, field, time.monotonic() - started)
    return TileRecord(tile, was_finished, time.monotonic() - started, peak_memory_bytes())


def _sample(job: TileJob, tile: int) -> SampledField | None:
    plan = job.plan
    world, _ = read_points(job.store, plan.under_crop(tile), has_colors=False)
    positions = plan.voxel_position(world)
    low = np.asarray(plan.crop_low(tile), np.float64)
    high = low + np.asarray(plan.crop_shape[::-1])
    positions = positions[((positions >= low) & (positions < high)).all(axis=1)]
    tile_low, tile_high = low + plan.halo_voxels, high - plan.halo_voxels
    reach = REACH_VOXELS if plan.blend_voxels else plan.halo_voxels  # without blending, as the original
    near = (positions >= tile_low - reach) & (positions < tile_high + reach)
    if not near.all(axis=1).any():
        return None
    lattice_positions = positions * plan.cells_per_voxel
    kept = thin_points(lattice_positions)
    positions, lattice_positions = positions[kept], lattice_positions[kept]
    network, device = network_on(job.model, job.device)
    values = CropField(network, device, plan, tile, positions, job.threshold)
    region = plan.region_box(tile)
    seeds = np.floor(lattice_positions).astype(np.int64)
    seeds = seeds[((seeds >= region.low) & (seeds < region.high)).all(axis=1)]
    return refine(values, np.asarray(region.low), np.asarray(region.high), seeds, MISE, QUERY_BATCH)


def load_fields(job: TileJob, tile: int) -> dict[int, SampledField]:
    """The fields that a tile's surface needs: its own whole, its neighbours' near the shared faces."""
    fields = {}
    for number in job.plan.around(tile):
        field = read_field(job.store, number, is_whole=number == tile)
        if field is not None:
            fields[number] = field
    return fields


def surface_tile(job: TileJob, tile: int) -> TileRecord:
    """Blend, extract and write one tile's surface. Does nothing if the file is there already."""
    started = time.monotonic()
    was_finished = job.store.exists(vertices_file(tile))
    if not was_finished:
        surface = tile_surface(job.plan, tile, load_fields(job, tile))
        colors = _vertex_colors(job, tile, surface.positions) if job.has_colors else None
        facts = {"seconds": time.monotonic() - started}
        write_tile(job.store, tile, surface, colors, facts)
    return TileRecord(tile, was_finished, time.monotonic() - started, peak_memory_bytes())


def _vertex_colors(job: TileJob, tile: int, positions: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colour (V, 3) of the scan point nearest to each vertex (in lattice units)."""
    world, colors = read_points(job.store, job.plan.around(tile), has_colors=True)
    if not len(positions) or colors is None or not len(world):
        return np.zeros((len(positions), 3), np.uint8)
    scaled = job.plan.voxel_position(world) * job.plan.cells_per_voxel
    margin = job.plan.halo_voxels * job.plan.cells_per_voxel
    near = ((scaled >= positions.min(axis=0) - margin) & (scaled <= positions.max(axis=0) + margin)).all(
        axis=1
    )
    chosen = np.flatnonzero(near) if near.any() else np.arange(len(scaled))
    _, nearest = cKDTree(scaled[chosen]).query(positions)
    return np.asarray(colors[chosen[nearest]])
