"""Occupancy of query points in a watertight mesh, by ray casting: parity where that is right, else windings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.meshes.checks import joined_parts
from preprocessing.native import ray_threads, ray_tree, tensor

# An odd number of rays votes, so that a ray through an edge or a vertex is outvoted.
RAYS = 3
QUERIES_PER_BATCH = 2_000_000
CHECKED_QUERIES = 4096


def label_mesh(
    vertices: NDArray[np.float64],
    faces: NDArray[np.integer],
    queries: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell which queries lie inside a watertight mesh whose surface does not cross itself.

    Args:
        vertices: (V, 3) float64, world coordinates of any magnitude.
        faces: (F, 3) rows of `vertices`.
        queries: (N, 3) float64, in the same coordinates.

    Returns:
        (N,) bool, the majority of several rays' parities.

    Raises:
        MeshError: if an edge does not belong to two faces of opposite direction.
        GeometryError: if Open3D cannot start.

    The ray caster works in float32, so the mesh's center is subtracted in float64 first: the error is
    about 1e-7 of the mesh's size, whatever its coordinates.
    """
    open_edges = unpaired_edges(faces)
    if open_edges:
        raise MeshError(
            f"the mesh is not watertight: {open_edges:,} of its edges lack an opposite; "
            "repair it, or make it watertight from depth maps, before labeling"
        )
    vertices = np.asarray(vertices, np.float64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    center = (low + high) / 2
    caster = ray_tree([(vertices - center, faces)])
    inside = np.zeros(len(queries), bool)
    rows = np.flatnonzero(((queries >= low) & (queries <= high)).all(axis=1))
    for start in range(0, len(rows), QUERIES_PER_BATCH):
        batch = rows[start : start + QUERIES_PER_BATCH]
        local = tensor(queries[batch] - center)
        inside[batch] = caster.compute_occupancy(local, nthreads=ray_threads(), nsamples=RAYS).numpy() > 0.5
    return inside


def label_solid(
    vertices: NDArray[np.float64], faces: NDArray[np.integer], queries: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Tell which queries lie inside a watertight mesh that may cross itself.

    Parity is several times faster than winding numbers and equals them unless the surface crosses itself; a
    sample of the queries tells which of the two is needed.

    Args, returns and errors: as `label_mesh`.
    """
    inside = label_mesh(vertices, faces, queries)
    if not len(queries):
        return inside
    solid = Solid(vertices, faces)
    sample = np.linspace(0, len(queries) - 1, min(len(queries), CHECKED_QUERIES)).astype(np.int64)
    if np.array_equal(solid.occupancy(queries[sample]), inside[sample]):
        return inside
    return np.concatenate(
        [
            solid.occupancy(queries[start : start + QUERIES_PER_BATCH])
            for start in range(0, len(queries), QUERIES_PER_BATCH)
        ]
    )


def signed_distances(
    vertices: NDArray[np.float64],
    faces: NDArray[np.integer],
    queries: NDArray[np.float64],
    occupied: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Distance (N,) float32 of queries (N, 3) to the nearest face, negative where they are inside.

    Args:
        vertices, faces: a watertight mesh, of any magnitude of coordinates.
        queries: (N, 3) float64.
        occupied: (N,) their occupancy, which gives the sign.

    Exact to the float32 of coordinates about the mesh's center. Where a surface crosses itself, faces inside the
    solid count as surface too.
    """
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    scene = ray_tree([(vertices - center, faces)])
    away: NDArray[np.float32] = scene.compute_distance(
        tensor(queries - center), nthreads=ray_threads()
    ).numpy()
    return np.where(occupied, -away, away)


def solid_components(faces: NDArray[np.integer], vertex_count: int) -> list[NDArray[np.integer]]:
    """Faces (F, 3) split into the parts that hang together by vertices."""
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    part = joined_parts(ends.T, vertex_count)[faces[:, 0]]
    order = np.argsort(part, kind="stable")
    return np.split(faces[order], np.flatnonzero(np.diff(part[order])) + 1)


class Solid:
    """Occupancy of a mesh, by winding numbers: a point is inside where more shells face out than in.

    Overlapping solids count as their union, and a shell turned inwards is a cavity; parity over the merged
    mesh would be wrong for the first. A mesh that is inside out as a whole (negative volume) is read as if
    turned right, since the papers' occupancy is blind to orientation too.

    Every part is a geometry of its own in the ray tree: of two hits of one geometry at the same distance Open3D
    lists one, which would lose the wall that touching solids share. Solids that touch must therefore not
    share vertices.

    Args:
        vertices, faces: a mesh whose every part is closed.
    """

    def __init__(self, vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> None:
        self._center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
        local = (vertices - self._center).astype(np.float32)
        parts = solid_components(faces, len(vertices))
        named = (np.unique(part, return_inverse=True) for part in parts)
        self._scene = ray_tree((local[used], rows.reshape(-1, 3)) for used, rows in named)
        self._first_triangle = np.cumsum([0] + [len(part) for part in parts])
        corners = local.astype(np.float64)[np.concatenate(parts)]
        self._normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        if (corners[:, 0] * self._normals).sum() < 0:
            self._normals = -self._normals

    def occupancy(self, queries: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each query (N, 3) is inside: majority over three rays of generic directions."""
        votes = np.zeros(len(queries), np.int64)
        local = (queries - self._center).astype(np.float32)
        for direction in ((0.8161, 0.4353, 0.3797), (-0.2913, 0.7127, -0.6381), (0.1531, -0.5817, 0.7989)):
            votes += self._winding(local, np.asarray(direction)) > 0
        return votes >= 2

    def _winding(self, local: NDArray[np.float32], direction: NDArray[np.float64]) -> NDArray[np.int64]:
        """Exits minus entries along a ray from each query."""
        rays = np.concatenate([local, np.broadcast_to(direction.astype(np.float32), local.shape)], axis=1)
        hits = self._scene.list_intersections(tensor(rays), nthreads=ray_threads())
        ray = hits["ray_ids"].numpy()
        triangle = self._first_triangle[hits["geometry_ids"].numpy()] + hits["primitive_ids"].numpy()
        leaving = np.where(self._normals[triangle] @ direction > 0, 1, -1)
        return np.bincount(ray, weights=leaving, minlength=len(local)).round().astype(np.int64)


def unpaired_edges(faces: NDArray[np.integer]) -> int:
    """Count the directed edges of (F, 3) faces that have no opposite; 0 for a watertight mesh."""
    faces = np.asarray(faces, np.int64)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    base = int(faces.max(initial=0)) + 1
    forward, backward = np.sort(start * base + end), np.sort(end * base + start)
    if np.array_equal(forward, backward):
        return 0
    return int((~np.isin(forward, backward)).sum()) or 1
