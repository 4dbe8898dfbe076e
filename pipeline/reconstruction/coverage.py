"""How much of a scan its mesh passes by: a mesh that leaves the points alone is no surface of theirs."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from pipeline.reconstruction.ingest import index_file, read_points
from pipeline.reconstruction.merge import TileReader, vertices_file

NEAR_VOXELS = 2.0
BESIDE_VOXELS = NEAR_VOXELS + 1.0  # from a tile: its vertices may lie a cell outside
TILES, POINTS = 64, 2_000  # looked at, evenly over the scene and over each tile's points
FEWEST_COVERED = 0.8  # below: a warning
FEWEST_FOR_SUCCESS = 0.5  # below: the run has failed


def measure_coverage(reader: TileReader) -> float:
    """Share of the scan's points with a vertex of the mesh within two voxels; from a sample, the same each time.

    Parts and faces that are left out of the mesh cover nothing. Vertices lie on a lattice of half a voxel, so one is
    near wherever the surface passes.
    """
    store, plan = reader.store, reader.plan
    with store.open_table(index_file()) as file:
        index = file.read(columns=["tile", "count"])
    tiles, counts = index["tile"], index["count"]
    occupied = np.unique(tiles)
    chosen = occupied[_evenly(len(occupied), TILES)]
    there = set(reader.tiles)
    weight = covered = 0.0
    for tile in chosen.tolist():
        points = read_points(store, [tile]).positions
        points = points[_evenly(len(points), POINTS)]
        local = plan.voxel_position(points)
        missed = np.ones(len(local), np.bool_)
        # Its own surface passes by most of a tile's points; a neighbor's is read for those others that are near it.
        for other in sorted(there.intersection(plan.around(tile)), key=lambda near: near != tile):
            box = plan.tile_box(other)
            low, high = (np.asarray(end) / plan.cells_per_voxel for end in (box.low, box.high))
            asked = missed & (np.abs(local - (low + high) / 2) <= (high - low) / 2 + BESIDE_VOXELS).all(
                axis=1
            )
            vertices = _vertices(reader, other) if asked.any() else np.zeros((0, 3))
            if len(vertices):
                # Asked a few times only: a tree that is quickly built.
                tree = cKDTree(vertices, balanced_tree=False, compact_nodes=False)
                distances, _ = tree.query(local[asked], distance_upper_bound=NEAR_VOXELS)
                missed[asked] = ~np.isfinite(distances)
        share = float(1 - missed.mean())
        total = float(counts[tiles == tile].sum())
        weight += total
        covered += total * share
    return covered / weight if weight else 0.0


def _evenly(count: int, most: int) -> np.ndarray:
    """Rows spread over `count`, at most `most` of them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def _vertices(reader: TileReader, tile: int) -> np.ndarray:
    """(V, 3) vertices of a tile that are in the mesh, in voxels of the scene."""
    with reader.store.open_table(vertices_file(tile)) as file:
        table = file.read(columns=["x", "y", "z", "part", "distance"])
    kept = reader.parts.is_kept[tile][table["part"]]
    if reader.choice.surface == "observed":
        kept = kept & (table["distance"] <= reader.choice.trim_voxels)
    positions = np.stack([table[axis] for axis in "xyz"], axis=1)
    return np.asarray(positions[kept] / reader.plan.cells_per_voxel)
