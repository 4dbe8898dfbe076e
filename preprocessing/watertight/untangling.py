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
PIECE_FACES = 500  # Open3D compares every pair of faces, so it is given pieces
SHRINK = 0.8  # a piece that keeps more of its faces than this after a cut is cut no further


def self_crossings(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C,) rows of the faces that cross another one with which they share no corner, ascending.

    Space is halved until few faces reach into a piece: two faces that cross reach into a common piece.
    """
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh()
    mesh.vertices = o3d.utility.Vector3dVector(vertices)
    corners = vertices[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    found = [np.zeros(0, np.int64)]
    waiting = [(np.arange(len(faces)), vertices.min(axis=0), vertices.max(axis=0))]
    while waiting:
        rows, start, end = waiting.pop()
        if len(rows) > PIECE_FACES:
            axis = int((end - start).argmax())
            middle = 0.5 * (start[axis] + end[axis])
            below, above = rows[low[rows, axis] <= middle], rows[high[rows, axis] >= middle]
            if max(len(below), len(above)) < SHRINK * len(rows):
                stop, begin = end.copy(), start.copy()
                stop[axis] = begin[axis] = middle
                waiting += [(below, start, stop), (above, begin, end)]
                continue
        mesh.triangles = o3d.utility.Vector3iVector(faces[rows].astype(np.int32))
        crossing = np.asarray(mesh.get_self_intersecting_triangles(), np.int64).reshape(-1)
        found.append(rows[crossing])
    return np.unique(np.concatenate(found))


def untangle(surface: Soup, spacing: float, rounds: int = ROUNDS) -> Soup:
    """Move the corners of crossing faces towards their neighbors' mean, little by little, until none cross.

    Marching cubes may fold its surface within a cell whose corners alternate, and removing faces may fold it
    further; the folds are smaller than the lattice's spacing, and so are the moves.

    Raises:
        MeshError: if faces still cross after many rounds.
    """
    vertices, faces = surface[0].copy(), surface[1]
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    shape = (len(vertices), len(vertices))
    neighbors = coo_array((np.ones(len(start)), (start, end)), shape=shape).tocsr()
    degree = np.bincount(start, minlength=len(vertices))[:, None]
    crossing = np.zeros(0, np.int64)
    for _ in range(rounds):
        crossing = self_crossings(vertices, faces)
        if not len(crossing):
            return vertices, faces
        rows = np.unique(faces[crossing])
        move = (neighbors[rows] @ vertices) / degree[rows] - vertices[rows]
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12)
        vertices[rows] += move * np.minimum(0.5, STEP * spacing / length)
    raise MeshError(f"the rebuilt surface crosses itself: {len(crossing)} faces; try another resolution")
