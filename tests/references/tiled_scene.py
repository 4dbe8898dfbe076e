"""An analytic field cut into tiles: plan, sampled fields and surfaces, without scan, network or Ray."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convonet.surface.mise import SampledField, refine
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


def sample_field(plan: ScenePlan, tile: int, field: Field, is_seeded: bool = True) -> SampledField:
    """One tile's field over its region, seeded where the surface is."""
    region = plan.region_box(tile)
    low, high = np.asarray(region.low), np.asarray(region.high)
    seeds = crossed_cells(field, low, high) if is_seeded else np.zeros((0, 3), np.int64)
    return refine(field, low, high, seeds, MISE)


def sample_fields(plan: ScenePlan, field: Field) -> dict[int, SampledField]:
    """Every tile's field."""
    return {tile: sample_field(plan, tile, field) for tile in range(plan.tile_count)}


def surfaces(plan: ScenePlan, fields: dict[int, SampledField]) -> dict[int, TileSurface]:
    """Every tile's surface."""
    return {tile: tile_surface(plan, tile, fields) for tile in range(plan.tile_count)}


@dataclass(frozen=True)
class Joined:
    """All tiles' surfaces as one, in an order that does not depend on the tiles.

    Attributes:
        keys: (V,) of the vertices, ascending.
        positions: (V, 3).
        faces: (F, 3) vertex keys, each turned to start at its least one, in ascending order.
    """

    keys: NDArray[np.int64]
    positions: NDArray[np.float64]
    faces: NDArray[np.int64]


def join(parts: dict[int, TileSurface]) -> Joined:
    """Join tiles by their keys. Fails if two tiles give one vertex different positions, or a face comes twice."""
    every = np.concatenate([part.keys for part in parts.values()])
    positions = np.concatenate([part.positions for part in parts.values()])
    keys, first, same = np.unique(every, return_index=True, return_inverse=True)
    assert np.array_equal(positions, positions[first][same]), "a vertex has two positions"
    faces = np.concatenate([part.faces for part in parts.values()])
    turns = (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3
    faces = np.take_along_axis(faces, turns, axis=1)
    faces = faces[np.lexsort(faces.T[::-1])]
    assert (faces[1:] != faces[:-1]).any(axis=1).all(), "a face comes twice"
    return Joined(keys, positions[first], faces)
