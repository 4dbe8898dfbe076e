"""Marching cubes on sparse lattice cells, with global integer vertex keys.

A vertex is named by its lattice edge (see `lattice`), so meshes extracted from different tiles join by
equal keys: no tolerance, no search. The faces of each cell come from `cell_cases`, which makes the mesh
of any values a closed, oriented 2-manifold wherever all the cells that the surface crosses are given.

Values are logits minus the threshold: inside is > 0, and exactly 0 is outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convonet.surface.cell_cases import CORNERS, EDGES, cell_cases
from convonet.surface.lattice import HALF_RANGE, is_first, key_step, pack, unpack_vertex
from foundation.errors import SettingError

MIN_FRACTION = 1e-3
"""Vertices keep this distance (in cells) from lattice points, so that no two coincide and no triangle
degenerates: three points inside different edges of a cube are never on one line."""

CHUNK_VALUES = 1 << 22
"""Block values scanned at once by `extract_blocks`, which bounds its temporary memory."""

_CORNER_STEPS = np.array(CORNERS, dtype=np.int64)
_EDGE_STEPS = np.array([4 * key_step(CORNERS[corner]) + axis for corner, axis in EDGES], dtype=np.int64)
_EDGE_LOW = np.array([corner for corner, _ in EDGES])
_EDGE_HIGH = np.array([corner + (4, 2, 1)[axis] for corner, axis in EDGES])


@dataclass(frozen=True)
class CellSurface:
    """Faces whose corners are named by vertex keys.

    Args:
        vertex_keys: (V,) int64, sorted, unique.
        positions: (V, 3) float64, lattice units.
        faces: (F, 3) int64 vertex keys, counter-clockwise seen from outside, in the order of the cells' keys.
    """

    vertex_keys: NDArray[np.int64]
    positions: NDArray[np.float64]
    faces: NDArray[np.int64]

    def indexed_faces(self) -> NDArray[np.int64]:
        """Faces (F, 3) as rows of `positions`."""
        return index_faces(self.vertex_keys, self.faces)


def extract_blocks(
    block_origins: NDArray[np.int64], values: NDArray[np.float32] | NDArray[np.float64]
) -> CellSurface:
    """Surface within many small dense blocks of cells.

    Args:
        block_origins: (B, 3) int64 lower corner of each block; blocks do not overlap.
        values: (B, n + 1, n + 1, n + 1) values at the blocks' lattice points, indexed [block, x, y, z].
            Blocks that share a lattice point must give the same value for it.

    Returns:
        The surface; the same bytes for any order of the blocks and, joined by key, for any grouping of them.

    Raises:
        ValueError: if shapes disagree, a cell comes twice, or a crossed cell has a value that is not finite.
    """
    side = values.shape[-1]
    if block_origins.shape != (len(values), 3) or values.shape[1:] != (side, side, side) or side < 2:
        raise ValueError(
            f"need block origins (B, 3) and values (B, n + 1, n + 1, n + 1), got {block_origins.shape} and "
            f"{values.shape}"
        )
    step = max(1, CHUNK_VALUES // side**3)
    parts = [
        _active_cells(block_origins[start : start + step], values[start : start + step])
        for start in range(0, max(len(values), 1), step)
    ]
    keys, corner_values, cases = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return _triangulate(keys, corner_values, cases)


def index_faces(vertex_keys: NDArray[np.int64], faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn faces (F, 3) of vertex keys into rows of the sorted `vertex_keys` (V,).

    Raises:
        ValueError: if a face names a vertex that is not there.
    """
    if len(faces) and not len(vertex_keys):
        raise ValueError("faces without vertices")
    rows: NDArray[np.int64] = np.searchsorted(vertex_keys, faces.ravel()).reshape(faces.shape)
    if len(faces) and (rows.max() >= len(vertex_keys) or not np.array_equal(vertex_keys[rows], faces)):
        raise ValueError("a face names a vertex key that is not among the vertices")
    return rows


def _cell_keys(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys of cells' lower corners; their upper corners must be in range too."""
    if len(cells) and cells.max() >= HALF_RANGE - 1:
        raise SettingError(f"cells must lie below {HALF_RANGE - 1}: use a larger voxel size")
    return pack(cells)


def _active_cells(
    origins: NDArray[np.int64], values: NDArray[np.float32] | NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32] | NDArray[np.float64], NDArray[np.uint8]]:
    """Keys, corner values and cases of the blocks' cells that the surface crosses."""
    side = values.shape[-1]
    flat = np.ascontiguousarray(values).reshape(-1)
    steps = _CORNER_STEPS @ np.array([side * side, side, 1])
    # Shifted copies of one flat array: long contiguous operations, however small the blocks. Points on a
    # block's upper faces start no cell; they get a meaningless case here and are dropped below.
    inside = np.zeros(flat.size + steps[-1], dtype=np.uint8)
    np.greater(flat, 0, out=inside[: flat.size].view(np.bool_))
    cases = np.zeros(flat.size, dtype=np.uint8)
    for corner, shift in enumerate(steps):
        cases |= inside[shift : shift + flat.size] << np.uint8(corner)
    starts_cell = np.zeros((side, side, side), dtype=np.bool_)
    starts_cell[:-1, :-1, :-1] = True
    crossed = ((cases + np.uint8(1)) > 1).reshape(len(values), side**3) & starts_cell.ravel()
    found = np.flatnonzero(crossed)
    block, local = np.divmod(found, side**3)
    cells = origins[block] + np.stack(np.unravel_index(local, (side, side, side)), axis=1)
    return _cell_keys(cells), flat[found[:, None] + steps], cases[found]


def _triangulate(
    keys: NDArray[np.int64],
    corner_values: NDArray[np.float32] | NDArray[np.float64],
    cases: NDArray[np.uint8],
) -> CellSurface:
    """Vertices and faces of crossed cells, given their keys (M,), values (M, 8) and cases (M,)."""
    if not np.isfinite(corner_values).all():
        raise ValueError("a value next to the surface is not finite")
    order = np.argsort(keys)
    keys, cases = keys[order], cases[order]
    if np.any(keys[1:] == keys[:-1]):
        raise ValueError("the same cell is given twice")
    tables = cell_cases()

    cell, edge = np.divmod(np.flatnonzero(tables.cut_edges[cases]), 12)
    edge_keys = 4 * keys[cell] + _EDGE_STEPS[edge]
    by_key = np.argsort(edge_keys)
    edge_keys = edge_keys[by_key]
    by_key = by_key[is_first(edge_keys)]
    vertex_keys = edge_keys[is_first(edge_keys)]
    cell, edge = order[cell[by_key]], edge[by_key]
    low = corner_values[cell, _EDGE_LOW[edge]].astype(np.float64)
    high = corner_values[cell, _EDGE_HIGH[edge]].astype(np.float64)
    fraction = np.clip(low / (low - high), MIN_FRACTION, 1 - MIN_FRACTION)
    lower, axis = unpack_vertex(vertex_keys)
    positions = lower.astype(np.float64)
    positions[np.arange(len(positions)), axis] += fraction

    starts = tables.triangle_start[cases.astype(np.int64)]
    counts = tables.triangle_start[cases.astype(np.int64) + 1] - starts
    ends = np.cumsum(counts)
    cell = np.repeat(np.arange(len(keys)), counts)
    row = np.arange(len(cell)) + (starts - (ends - counts))[cell]
    faces = 4 * keys[cell][:, None] + _EDGE_STEPS[tables.triangles[row]]
    return CellSurface(vertex_keys, positions, faces)
