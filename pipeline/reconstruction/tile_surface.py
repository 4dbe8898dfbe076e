"""The surface inside one tile: blend the crops' fields, extract, decide who owns each vertex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convonet.surface.lattice import unpack_vertex
from convonet.surface.marching_cubes import CellSurface, extract_blocks, index_faces
from convonet.surface.mise import SampledField
from pipeline.reconstruction.blending import blended_values
from pipeline.reconstruction.plan import MISE, ScenePlan

BLOCK = MISE.steps[-2]
BLOCKS_AT_ONCE = 8192  # bounds the memory of blending: 125 lattice points each


@dataclass(frozen=True)
class TileSurface:
    """What one tile contributes to the mesh. Rows are grouped: owned on the border, owned inside, foreign.

    Attributes:
        keys: (V,) int64 vertex keys, ascending within each of the three groups.
        positions: (V, 3) float64 lattice units.
        normal_sums: (V, 3) float64 sums of the tile's own area-weighted face normals.
        owned_border, owned: lengths of the first group, and of the first two together.
        faces: (F, 3) int64 vertex keys.
        bad_edges: undirected edges that no neighbor could complete: more than two faces, or both the same way.
    """

    keys: NDArray[np.int64]
    positions: NDArray[np.float64]
    normal_sums: NDArray[np.float64]
    owned_border: int
    owned: int
    faces: NDArray[np.int64]
    bad_edges: int


def active_blocks(plan: ScenePlan, tile: int, fields: Mapping[int, SampledField]) -> NDArray[np.int64]:
    """Lower corners (B, 3) of the tile's blocks that the blended surface may cross.

    A block is active if any crop that reaches it refined it, or if those crops disagree about its side of
    the surface. In every other block each crop has one sign, the same for all: so has the blend, on its
    faces too, and no surface is missed.
    """
    box = plan.tile_box(tile)
    low, high = np.asarray(box.low), np.asarray(box.high)
    shape = tuple((high - low) // BLOCK)
    refined, inside, free = (np.zeros(shape, np.bool_) for _ in range(3))
    position = plan.position(tile)
    for axis in range(3):  # the scene's outer faces are free whatever the crops say
        if position[axis] == 0:
            np.moveaxis(free, axis, 0)[0] = True
        if position[axis] == plan.grid[axis] - 1:
            np.moveaxis(free, axis, 0)[-1] = True
    reaches: list[tuple[int, tuple[slice, ...]]] = []
    crops = free.astype(
        np.int8
    )  # how many have a say; where one alone has, there is nothing to disagree about
    for number in plan.around(tile):
        region = plan.region_box(number)
        start, stop = np.maximum(low, region.low), np.minimum(high, region.high)
        if (start < stop).all():
            first, last = (start - low) // BLOCK, (stop - low) // BLOCK
            reaches.append((number, tuple(slice(int(f), int(e)) for f, e in zip(first, last, strict=True))))
            crops[reaches[-1][1]] += 1
    for number, where in reaches:
        if number not in fields:
            free[where] = True
            continue
        blocks = fields[number].leaf_origins()
        chosen = ((blocks >= low) & (blocks < high)).all(axis=1)
        refined[tuple(((blocks[chosen] - low) // BLOCK).T)] = True
        shared = np.argwhere(crops[where] > 1) + np.array([part.start for part in where])
        is_inside = fields[number].value_at(shared * BLOCK + low) > 0
        inside[tuple(shared[is_inside].T)] = True
        free[tuple(shared[~is_inside].T)] = True
    active = refined | (inside & free)
    return np.asarray(np.argwhere(active) * BLOCK + low)


def owner_of(keys: NDArray[np.int64], plan: ScenePlan) -> NDArray[np.int64]:
    """The tile that owns each vertex: the lowest-numbered tile with a cell at the vertex's lattice edge.

    Tile numbers grow along every axis, so it is the tile of the lowest of the edge's four cells.
    """
    cells, axis = unpack_vertex(keys)
    lowest = cells - (np.arange(3) != axis[:, None])
    places = np.maximum(lowest, 0) // np.asarray(plan.tile_cells)
    return np.asarray((places[:, 2] * plan.grid[1] + places[:, 1]) * plan.grid[0] + places[:, 0])


def is_on_border(keys: NDArray[np.int64], plan: ScenePlan, tile: int) -> NDArray[np.bool_]:
    """Whether each vertex lies on a face of the tile's box, so that neighbors may name it too."""
    points, axis = unpack_vertex(keys)
    box = plan.tile_box(tile)
    on_plane = (points == np.asarray(box.low)) | (points == np.asarray(box.high))
    return np.asarray((on_plane & (np.arange(3) != axis[:, None])).any(axis=1))


def tile_surface(plan: ScenePlan, tile: int, fields: Mapping[int, SampledField]) -> TileSurface:
    """Extract one tile.

    Args:
        plan: the scene's plan.
        tile: which tile.
        fields: fields of the tile's crop and of its neighbors'; absent ones have no points.
    """
    surface = _extract(plan, tile, fields)
    keys = surface.vertex_keys
    owned = owner_of(keys, plan) == tile
    border = is_on_border(keys, plan, tile)
    group = np.where(owned, np.where(border, 0, 1), 2)
    order = np.argsort(group, kind="stable")
    rows = index_faces(keys, surface.faces)
    return TileSurface(
        keys=keys[order],
        positions=surface.positions[order],
        normal_sums=_normal_sums(surface.positions, rows)[order],
        owned_border=int((group == 0).sum()),
        owned=int(owned.sum()),
        faces=surface.faces,
        bad_edges=_bad_edges(rows),
    )


def _extract(plan: ScenePlan, tile: int, fields: Mapping[int, SampledField]) -> CellSurface:
    blocks = active_blocks(plan, tile, fields)
    offsets = np.stack(np.meshgrid(*([np.arange(BLOCK + 1)] * 3), indexing="ij"), axis=-1).reshape(-1, 3)
    tiles = plan.around(tile)
    values = np.empty((len(blocks), len(offsets)))
    for start in range(0, len(blocks), BLOCKS_AT_ONCE):
        part = blocks[start : start + BLOCKS_AT_ONCE]
        points = (part[:, None] + offsets).reshape(-1, 3)
        values[start : start + len(part)] = blended_values(points, plan, tiles, fields).reshape(len(part), -1)
    return extract_blocks(blocks, values.reshape(len(blocks), BLOCK + 1, BLOCK + 1, BLOCK + 1))


def _normal_sums(positions: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of the normals of each vertex's faces, weighted by area; summed in the order of the faces."""
    a, b, c = (positions[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    sums = np.empty((len(positions), 3))
    for axis in range(3):
        weights = np.repeat(normals[:, axis], 3)
        sums[:, axis] = np.bincount(faces.ravel(), weights=weights, minlength=len(positions))
    return sums


def _bad_edges(faces: NDArray[np.int64]) -> int:
    """Number of edges with more than two faces, or with two that run the same way."""
    if not len(faces):
        return 0
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    low, high = directed.min(axis=1), directed.max(axis=1)
    undirected = low * (int(faces.max()) + 1) + high
    order = np.argsort(undirected, kind="stable")
    sorted_edges = undirected[order]
    first = np.flatnonzero(np.r_[True, sorted_edges[1:] != sorted_edges[:-1]])
    counts = np.diff(np.r_[first, len(sorted_edges)])
    forward = np.add.reduceat((directed[order, 0] < directed[order, 1]).astype(np.int64), first)
    return int(((counts > 2) | ((counts == 2) & (forward != 1))).sum())
