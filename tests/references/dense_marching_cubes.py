"""Slow and plain: one surface from a dense array, and the checks of a closed manifold by counting."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from convonet.surface.cell_cases import CORNERS
from convonet.surface.marching_cubes import CellSurface, extract_blocks
from tests.references.fields import Field


def grid_points(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """All lattice points (N, 3) of the half-open box, x-major."""
    axes = [np.arange(low[i], high[i], dtype=np.int64) for i in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def extract_cells(cells: NDArray[np.int64], corner_values: NDArray[np.floating]) -> CellSurface:
    """Surface within cells (M, 3), each a block of its own, from values (M, 8) in the order of `CORNERS`."""
    values = np.empty((*corner_values.shape[:-1], 2, 2, 2), corner_values.dtype)
    for corner, (x, y, z) in enumerate(CORNERS):
        values[..., x, y, z] = corner_values[..., corner]
    return extract_blocks(cells, values)


def extract_dense(field: Field, low: NDArray[np.int64], high: NDArray[np.int64]) -> CellSurface:
    """Surface of every cell of the half-open box, each corner evaluated on its own."""
    cells = grid_points(low, high)
    values = np.stack([field(cells + np.array(corner)) for corner in CORNERS], axis=1)
    return extract_cells(cells, values)


def edges_not_shared_by_two(faces: NDArray[np.int64]) -> int:
    """How many undirected edges have other than two faces."""
    counts = Counter(frozenset((int(f[i]), int(f[(i + 1) % 3]))) for f in faces for i in range(3))
    return sum(n != 2 for n in counts.values())


def assert_closed_manifold(faces: NDArray[np.int64]) -> None:
    """Every directed edge once, its reverse once, one cycle of faces around each vertex, no face twice."""
    rows = faces.tolist()
    directed = Counter(edge for a, b, c in rows for edge in ((a, b), (b, c), (c, a)))
    assert all(n == 1 for n in directed.values()), "a directed edge is used twice"
    assert all((b, a) in directed for a, b in directed), "an edge has one face only"
    assert len({frozenset(row) for row in rows}) == len(rows), "a face comes twice"
    around: dict[int, dict[int, int]] = defaultdict(dict)
    for a, b, c in rows:
        around[a][b], around[b][c], around[c][a] = c, a, b
    for v, ring in around.items():
        start = next(iter(ring))
        at, steps = ring[start], 1
        while at != start:
            at, steps = ring[at], steps + 1
        assert steps == len(ring), f"vertex {v} joins two sheets"
