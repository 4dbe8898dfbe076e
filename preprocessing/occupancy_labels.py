"""Occupancy of query points in a watertight mesh, by ray casting."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.native import load_open3d

# An odd number of rays votes, so that a ray through an edge or a vertex is outvoted.
RAYS = 3
QUERIES_PER_BATCH = 2_000_000


def label_mesh(
    vertices: NDArray[np.float64],
    triangles: NDArray[np.integer],
    queries: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell which queries lie inside a watertight mesh whose surface does not cross itself.

    Args:
        vertices: (V, 3) float64, world coordinates of any magnitude.
        triangles: (F, 3) rows of `vertices`.
        queries: (N, 3) float64, in the same coordinates.

    Returns:
        (N,) bool, the majority of several rays' parities.

    Raises:
        MeshError: if an edge does not belong to two triangles of opposite direction.
        GeometryError: if Open3D cannot start.

    The ray caster works in float32, so the mesh's centre is subtracted in float64 first: the error is
    about 1e-7 of the mesh's size, whatever its coordinates.
    """
    open_edges = unpaired_edges(triangles)
    if open_edges:
        raise MeshError(
            f"the mesh is not watertight: {open_edges:,} of its edges lack an opposite; "
            "repair it, or make it watertight from depth maps, before labelling"
        )
    open3d = load_open3d()
    vertices = np.asarray(vertices, np.float64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centre = (low + high) / 2
    caster = open3d.t.geometry.RaycastingScene()
    caster.add_triangles(
        open3d.core.Tensor((vertices - centre).astype(np.float32)),
        open3d.core.Tensor(np.ascontiguousarray(triangles, np.uint32)),
    )
    inside = np.zeros(len(queries), bool)
    rows = np.flatnonzero(((queries >= low) & (queries <= high)).all(axis=1))
    for start in range(0, len(rows), QUERIES_PER_BATCH):
        batch = rows[start : start + QUERIES_PER_BATCH]
        local = open3d.core.Tensor((queries[batch] - centre).astype(np.float32))
        inside[batch] = caster.compute_occupancy(local, nsamples=RAYS).numpy() > 0.5
    return inside


def unpaired_edges(triangles: NDArray[np.integer]) -> int:
    """Count the directed edges of (F, 3) triangles that have no opposite; 0 for a watertight mesh."""
    triangles = np.asarray(triangles, np.int64)
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    base = int(triangles.max(initial=0)) + 1
    forward, backward = np.sort(start * base + end), np.sort(end * base + start)
    if np.array_equal(forward, backward):
        return 0
    return int((~np.isin(forward, backward)).sum()) or 1
