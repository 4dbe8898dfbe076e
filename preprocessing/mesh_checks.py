"""Whether a mesh is closed, oriented and clean: exact counts over its edges, vertices and faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_FACES = 1 << 21


@dataclass(frozen=True)
class MeshCheck:
    """Counts of what a sound mesh has none of.

    Attributes:
        vertices, faces: sizes.
        boundary_edges: undirected edges with one face.
        nonmanifold_edges: with more than two faces, or two of the same direction.
        duplicate_vertices: vertices at the position of another.
        degenerate_faces: faces with a repeated corner or no area.
        duplicate_faces: faces with the corners of another.
        unused_vertices: vertices of no face.
        volume: enclosed volume; meaningful where closed.
    """

    vertices: int
    faces: int
    boundary_edges: int
    nonmanifold_edges: int
    duplicate_vertices: int
    degenerate_faces: int
    duplicate_faces: int
    unused_vertices: int
    volume: float

    @property
    def is_watertight(self) -> bool:
        """Every edge has exactly two faces, of opposite direction."""
        return self.faces > 0 and self.boundary_edges == 0 and self.nonmanifold_edges == 0

    @property
    def is_clean(self) -> bool:
        """Watertight, without duplicate vertices, degenerate or duplicate faces."""
        return self.is_watertight and not (
            self.duplicate_vertices + self.degenerate_faces + self.duplicate_faces
        )


def check_mesh(vertices: NDArray[np.floating], triangles: NDArray[np.integer]) -> MeshCheck:
    """Count a mesh's flaws.

    Faces are read in blocks, so both arrays may be memory maps; beside them it takes about 50 bytes for
    each face (4 GiB for 85 million).

    Args:
        vertices: (V, 3) floats.
        triangles: (F, 3) integers below V.
    """
    count, faces = len(vertices), len(triangles)
    undirected, directed = np.empty(3 * faces, np.int64), np.empty(3 * faces, np.int64)
    is_used = np.zeros(count, np.bool_)
    degenerate, volume = 0, 0.0
    for start in range(0, faces, BLOCK_FACES):
        block = np.asarray(triangles[start : start + BLOCK_FACES], np.int64)
        ends = block[:, [1, 2, 0]]
        rows = slice(3 * start, 3 * start + block.size)
        undirected[rows] = (np.minimum(block, ends) * count + np.maximum(block, ends)).ravel()
        directed[rows] = (block * count + ends).ravel()
        is_used[block] = True
        corners = np.asarray(vertices[block], np.float64)
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        degenerate += int(((block == ends).any(axis=1) | ~cross.any(axis=1)).sum())
        volume += float((corners[:, 0] * cross).sum() / 6.0)
    boundary, nonmanifold = _edge_flaws(undirected, directed, count)
    del undirected, directed
    return MeshCheck(
        vertices=count,
        faces=faces,
        boundary_edges=boundary,
        nonmanifold_edges=nonmanifold,
        duplicate_vertices=count - _distinct_rows(np.asarray(vertices)),
        degenerate_faces=degenerate,
        duplicate_faces=faces - _distinct_rows(_sorted_corners(triangles)),
        unused_vertices=count - int(is_used.sum()),
        volume=volume,
    )


def _edge_flaws(undirected: NDArray[np.int64], directed: NDArray[np.int64], count: int) -> tuple[int, int]:
    """Edges with one face, and edges with more than two or with two of one direction; sorts in place."""
    undirected.sort()
    first = np.flatnonzero(np.r_[True, undirected[1:] != undirected[:-1]]) if len(undirected) else undirected
    faces_of_edge = np.diff(np.r_[first, len(undirected)])
    crowded = undirected[first[faces_of_edge > 2]]
    boundary = int((faces_of_edge == 1).sum())
    del first, faces_of_edge
    directed.sort()
    repeated = directed[1:][directed[1:] == directed[:-1]]
    start, end = np.divmod(repeated, max(1, count))
    one_way = np.unique(np.minimum(start, end) * count + np.maximum(start, end))
    return boundary, len(np.union1d(crowded, one_way))


def _sorted_corners(triangles: NDArray[np.integer]) -> NDArray[np.int32]:
    """Corners (F, 3) of each face in ascending order, in blocks."""
    result = np.empty((len(triangles), 3), np.int32)
    for start in range(0, len(triangles), BLOCK_FACES):
        result[start : start + BLOCK_FACES] = np.sort(triangles[start : start + BLOCK_FACES], axis=1)
    return result


def _distinct_rows(rows: NDArray[np.generic]) -> int:
    if not len(rows):
        return 0
    order = np.lexsort(rows.T)
    differs = np.zeros(len(rows) - 1, np.bool_)
    for column in rows.T:
        ordered = column[order]
        differs |= ordered[1:] != ordered[:-1]
    return 1 + int(differs.sum())
