"""The kinds of work on a tile, as plain functions: what Ray tasks run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from convonet.surface.mise import SampledField, refine
from pipeline.reconstruction.coarse_field import (
    CoarseBlock,
    LevelFacts,
    buried_points,
    grid_box,
    level_file,
    read_block,
    tiles_below,
    write_level_tile,
)
from pipeline.reconstruction.crop_field import (
    QUERY_BATCH,
    CropField,
    CropPoints,
    LatticeField,
    network_on,
)
from pipeline.reconstruction.field_store import field_file, read_field, write_field
from pipeline.reconstruction.ingest import read_points
from pipeline.reconstruction.merge import vertices_file, write_tile
from pipeline.reconstruction.parts import tile_parts
from pipeline.reconstruction.plan import MISE, ScenePlan
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.support import (
    LARGEST_DISTANCE,
    SUPPORTING_POINTS,
    VertexSupport,
    confidence,
)
from pipeline.reconstruction.tile_surface import tile_surface

REACH_VOXELS = 16  # without a coarser level, a crop is encoded if a scan point lies this near to its tile
TRUSTED_VOXELS = 12  # with one: the blending band, and as far as a level is believed at all
NO_POINTS = CropPoints(np.zeros((0, 3)), np.zeros((0, 3), np.float32))


@dataclass(frozen=True)
class TileJob:
    """What every task of a run needs to know.

    Attributes:
        store: the run directory.
        plans: of the levels, finest first.
        model: weights file.
        threshold: occupancy probability at the surface.
        device: auto, cpu or cuda.
        has_colors: whether the scan's points carry colors.
        fit_radius: of the fit to the scan, in voxels; 0 for none.
        trim_voxels: vertices farther than this from every point are guessed.
        level_tiles: of each finished level, the tiles that have a file.
        believable_levels: finished levels that may tell finer ones which side of the points is free.
    """

    store: RunStore
    plans: tuple[ScenePlan, ...]
    model: str
    threshold: float
    device: str
    has_colors: bool
    fit_radius: float
    trim_voxels: float
    level_tiles: Mapping[int, frozenset[int]] = field(default_factory=dict)
    believable_levels: frozenset[int] = frozenset()

    @property
    def plan(self) -> ScenePlan:
        """That of the finest level, whose surface becomes the mesh."""
        return self.plans[0]


@dataclass(frozen=True)
class SurfaceRequest:
    """A tile's surface, and the tiles around it whose fields it is made of: without one of them it would be wrong."""

    tile: int
    fields: tuple[int, ...]


def sample_tile(job: TileJob, tile: int) -> bool:
    """Encode a tile's crop, refine its field, write it. Does nothing if the file is there already; returns whether."""
    started = time.monotonic()
    if job.store.exists(field_file(tile)):
        return True
    sampled = _sample(job, tile)
    write_field(job.store, job.plan, tile, sampled, time.monotonic() - started)
    return False


def _sample(job: TileJob, tile: int) -> SampledField | None:
    plan = job.plan
    region = plan.region_box(tile)
    coarse = _coarse_block(job, 0, tile)
    points = _crop_points(job, plan, tile, reach=_reach(plan, coarse))
    low, high = np.asarray(region.low), np.asarray(region.high)
    if points is None and (coarse is None or not coarse.holds_solid(low, high, plan.cells_per_voxel)):
        return None
    every = points or NO_POINTS
    thinned = every.thinned(plan.cells_per_voxel)
    network, device = network_on(job.model, job.device)
    values = LatticeField(CropField(network, device, plan, tile, thinned, coarse), plan, tile, job.threshold)
    if points is not None and network.logits_per_voxel and job.fit_radius:
        values.fit(every.positions, network.logits_per_voxel, job.fit_radius)
    seeds = np.floor(thinned.positions * plan.cells_per_voxel).astype(np.int64)
    seeds = seeds[((seeds >= low) & (seeds < high)).all(axis=1)]
    return refine(values, low, high, seeds, MISE, QUERY_BATCH)


def _coarse_block(job: TileJob, level: int, tile: int) -> CoarseBlock | None:
    if level + 1 == len(job.plans):
        return None
    coarser = level + 1
    finished, is_believable = job.level_tiles[coarser], coarser in job.believable_levels
    return read_block(job.store, job.plans[coarser], finished, job.plans[level], tile, is_believable)


def _crop_points(job: TileJob, plan: ScenePlan, tile: int, reach: float) -> CropPoints | None:
    """The points of a tile's crop; None where none is within `reach` voxels of the tile."""
    read = read_points(job.store, plan.under_crop(tile), plan.level)
    positions = plan.voxel_position(read.positions)
    low = np.asarray(plan.crop_low(tile), np.float64)
    high = low + np.asarray(plan.crop_shape[::-1])
    inside = ((positions >= low) & (positions < high)).all(axis=1)
    positions, directions = positions[inside], read.directions[inside]
    tile_low, tile_high = low + plan.halo_voxels, high - plan.halo_voxels
    near = (positions >= tile_low - reach) & (positions < tile_high + reach)
    return CropPoints(positions, directions) if near.all(axis=1).any() else None


def level_tile(job: TileJob, place: tuple[int, int]) -> bool:
    """Compute one tile (level, tile) of a coarser level; see `sample_tile`."""
    started = time.monotonic()
    level, tile = place
    if job.store.exists(level_file(level, tile)):
        return True
    plan = job.plans[level]
    coarse = _coarse_block(job, level, tile)
    points = _crop_points(job, plan, tile, reach=_reach(plan, coarse))
    network, device = network_on(job.model, job.device)
    thinned = (points or NO_POINTS).thinned(plan.cells_per_voxel)
    crop = CropField(network, device, plan, tile, thinned, coarse)
    first, last = grid_box(plan, tile)
    shape = tuple((last - first + 1).tolist())
    values = np.empty(shape, np.float32)
    corners = np.stack(np.meshgrid(*map(np.arange, shape[1:]), indexing="ij"), axis=-1).reshape(-1, 2)
    for x in range(shape[0]):  # slab by slab, so that memory stays that of a slab
        slab = np.column_stack([np.full(len(corners), x), corners]) + first
        values[x] = crop.at(slab.astype(np.float64)).reshape(shape[1:])
    below = tiles_below(job.plans[level - 1], plan, tile, values)
    found = LevelFacts(below, *buried_points(plan, tile, values, thinned.positions))
    kept = values if (values > 0).any() else None
    write_level_tile(job.store, plan, tile, kept, found, time.monotonic() - started)
    return False


def _reach(plan: ScenePlan, coarse: CoarseBlock | None) -> float:
    """Voxels around a tile within which a scan point has its crop encoded."""
    if coarse is not None:
        return TRUSTED_VOXELS
    return REACH_VOXELS if plan.blend_voxels else plan.halo_voxels  # without blending, as the original


def load_fields(job: TileJob, request: SurfaceRequest) -> dict[int, SampledField]:
    """The fields that a tile's surface needs: its own whole, its neighbors' near the shared faces; empty ones aside.

    Raises:
        RunFileError: if one is missing or damaged.
    """
    read = ((tile, read_field(job.store, tile, is_whole=tile == request.tile)) for tile in request.fields)
    return {tile: sampled for tile, sampled in read if sampled is not None}


def surface_tile(job: TileJob, request: SurfaceRequest) -> bool:
    """Blend, extract and write one tile's surface; see `sample_tile`."""
    started = time.monotonic()
    tile = request.tile
    if job.store.exists(vertices_file(tile)):
        return True
    surface = tile_surface(job.plan, tile, load_fields(job, request))
    support = vertex_support(job, tile, surface.positions)
    facts = {"seconds": time.monotonic() - started}
    parts = tile_parts(surface, support, job.plan.cells_per_voxel, job.trim_voxels)
    write_tile(job.store, tile, surface, support, parts, facts)
    return False


def vertex_support(job: TileJob, tile: int, positions: NDArray[np.float64]) -> VertexSupport:
    """What the scan says of vertices (V, 3) in lattice units: see `VertexSupport`."""
    read = read_points(job.store, job.plan.around(tile), has_colors=job.has_colors)
    scaled = job.plan.voxel_position(read.positions)
    vertices = positions / job.plan.cells_per_voxel
    if not len(vertices) or not len(scaled):
        colors = np.zeros((len(vertices), 3), np.uint8) if job.has_colors else None
        return VertexSupport(
            np.full(len(vertices), np.inf, np.float32), np.zeros(len(vertices), np.float32), colors
        )
    low, high = vertices.min(axis=0) - job.plan.halo_voxels, vertices.max(axis=0) + job.plan.halo_voxels
    chosen = np.flatnonzero(((scaled >= low) & (scaled <= high)).all(axis=1))
    if not len(chosen):
        chosen = np.arange(len(scaled))
    away, nearest = cKDTree(scaled[chosen]).query(vertices, k=SUPPORTING_POINTS)
    away = np.where(np.isfinite(away), away, np.float64(LARGEST_DISTANCE))
    nearest = np.where(nearest < len(chosen), nearest, 0)
    colors = None if read.colors is None else read.colors[chosen[nearest[:, 0]]]
    return VertexSupport(away[:, 0].astype(np.float32), confidence(away[:, 0], away[:, -1]), colors)
