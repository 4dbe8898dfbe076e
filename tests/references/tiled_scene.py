"""An analytic field cut into tiles: plan, sampled fields and surfaces, without scan, network or Ray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convonet.mise import SampledField, refine
from pipeline.reconstruction.plan import MISE, ScenePlan
from pipeline.reconstruction.tile_surface import TileSurface, tile_surface
from tests.references.dense_marching_cubes import grid_points
from tests.references.fields import Field

WHOLE = ScenePlan(
    origin=(100.0, -50.0, 5_000_000.0),
    voxel_size=0.2,
    cells_per_voxel=2,
    tile_voxels=(48, 48, 48),
    grid=(1, 1, 1),
    halo_voxels=4,
    blend_voxels=4,
)
"""A scene of 96^3 cells in one tile."""


def tiled(grid: tuple[int, int, int]) -> ScenePlan:
    """The same scene in `grid` tiles."""
    x, y, z = (48 // count for count in grid)
    return replace(WHOLE, tile_voxels=(x, y, z), grid=grid)


def crossed_cells(field: Field, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells of a half-open box whose corners differ in sign: where a scan's points would lie."""
    shape = tuple(high - low + 1)
    inside = (field(grid_points(low, high + 1)) > 0).reshape(shape)
    views = [
        inside[i : shape[0] - 1 + i, j : shape[1] - 1 + j, k : shape[2] - 1 + k]
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    ]
    return np.argwhere(np.any(views, axis=0) & ~np.all(views, axis=0)) + low


def sample_fields(plan: ScenePlan, field: Field, is_seeded: bool = True) -> dict[int, SampledField]:
    """Every tile's field over its region, seeded where the surface is."""
    fields = {}
    for tile in range(plan.tile_count):
        region = plan.region_box(tile)
        low, high = np.asarray(region.low), np.asarray(region.high)
        seeds = crossed_cells(field, low, high) if is_seeded else np.zeros((0, 3), np.int64)
        fields[tile] = refine(field, low, high, seeds, MISE)
    return fields


def surfaces(plan: ScenePlan, fields: dict[int, SampledField]) -> dict[int, TileSurface]:
    """Every tile's surface."""
    return {tile: tile_surface(plan, tile, fields) for tile in range(plan.tile_count)}


def join(parts: dict[int, TileSurface]) -> tuple[dict[int, NDArray[np.float64]], set[tuple[int, ...]]]:
    """Vertex positions by key, and faces as a set of key triples turned to start at their least key.

    Fails if two tiles give one vertex different positions, or a face comes twice.
    """
    positions: dict[int, NDArray[np.float64]] = {}
    faces: list[tuple[int, ...]] = []
    for part in parts.values():
        for key, position in zip(part.keys.tolist(), part.positions, strict=True):
            known = positions.setdefault(key, position)
            assert np.array_equal(known, position), f"vertex {key} has two positions"
        for face in part.faces.tolist():
            start = face.index(min(face))
            faces.append(tuple(face[start:] + face[:start]))
    assert len(set(faces)) == len(faces), "a face comes twice"
    return positions, set(faces)
