"""Small moves that end the self-intersections of a rebuilt surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from preprocessing.errors import MeshError
from preprocessing.native import load_open3d
from preprocessing.watertight.cleaning import Soup

ROUNDS = 60
STEP = 0.1  # of the lattice's spacing, in each round


def untangle(surface: Soup, spacing: float) -> Soup:
    """Move the corners of crossing triangles towards their neighbours' mean, little by little, until none cross.

    Marching cubes may fold its surface within a cell whose corners alternate, and removing faces may fold it
    further; the folds are smaller than the lattice's spacing, and so are the moves.

    Raises:
        MeshError: if triangles still cross after many rounds.
    """
    vertices, triangles = surface[0].copy(), surface[1]
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh()
    mesh.triangles = o3d.utility.Vector3iVector(triangles.astype(np.int32))
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    shape = (len(vertices), len(vertices))
    neighbours = coo_array((np.ones(len(start)), (start, end)), shape=shape).tocsr()
    degree = np.bincount(start, minlength=len(vertices))[:, None]
    for _ in range(ROUNDS):
        mesh.vertices = o3d.utility.Vector3dVector(vertices)
        crossing: NDArray[np.int32] = np.asarray(mesh.get_self_intersecting_triangles())
        if not len(crossing):
            return vertices, triangles
        rows = np.unique(triangles[np.unique(crossing)])
        move = (neighbours[rows] @ vertices) / degree[rows] - vertices[rows]
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12)
        vertices[rows] += move * np.minimum(0.5, STEP * spacing / length)
    raise MeshError(f"the rebuilt surface crosses itself in {len(crossing)} places; try another resolution")
