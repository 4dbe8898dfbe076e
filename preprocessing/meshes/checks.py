"""Whether a mesh is closed, oriented and clean: exact counts over its edges, vertices and faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from preprocessing.errors import MeshError

BLOCK_FACES = 1 << 21


@dataclass(frozen=True)
class MeshCheck:
    """Counts of what a sound mesh has none of.

    Attributes:
        vertices, faces: sizes.
        boundary_edges: undirected edges with one face.
        nonmanifold_edges: with more than two faces, or two of the same direction.
        duplicate_vertices: vertices at the position of another.
        degenerate_faces: faces with a repeated corner, no area, or a corner that is not finite.
        duplicate_faces: faces with the corners of another.
        unused_vertices: vertices of no face.
        components: parts that hang together by vertices.
        euler_number: used vertices - edges + faces; 2 for each closed part without handles, 2 less a handle.
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
    components: int
    euler_number: int
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


def check_mesh(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> MeshCheck:
    """Count a mesh's flaws.

    Faces are read in blocks, so both arrays may be memory maps; beside them it takes about 150 bytes for
    each face (4.1 GiB for 30 million).

    Args:
        vertices: (V, 3) floats.
        faces: (F, 3) integers below V.

    Raises:
        MeshError: if a face names a vertex that is not there.
    """
    count, face_count = len(vertices), len(faces)
    undirected, directed = np.empty(3 * face_count, np.int64), np.empty(3 * face_count, np.int64)
    is_used = np.zeros(count, np.bool_)
    degenerate, volume = 0, 0.0
    for start in range(0, face_count, BLOCK_FACES):
        block = np.asarray(faces[start : start + BLOCK_FACES], np.int64)
        if block.min() < 0 or block.max() >= count:
            raise MeshError(
                f"a face names vertex {block.min() if block.min() < 0 else block.max()} of {count:,}; "
                "the file is damaged or its faces belong to another mesh"
            )
        ends = block[:, [1, 2, 0]]
        rows = slice(3 * start, 3 * start + block.size)
        undirected[rows] = (np.minimum(block, ends) * count + np.maximum(block, ends)).ravel()
        directed[rows] = (block * count + ends).ravel()
        is_used[block] = True
        corners = np.asarray(vertices[block], np.float64)
        with np.errstate(invalid="ignore"):  # corners that are not finite count as degenerate
            cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        degenerate += int(((block == ends).any(axis=1) | ~(np.abs(cross).sum(axis=1) > 0)).sum())
        volume += float((corners[:, 0] * cross).sum() / 6.0)
    edges, boundary, nonmanifold = _edge_flaws(undirected, directed, count)
    del undirected, directed
    used = int(is_used.sum())
    return MeshCheck(
        vertices=count,
        faces=face_count,
        boundary_edges=boundary,
        nonmanifold_edges=nonmanifold,
        duplicate_vertices=count - _distinct_rows(np.asarray(vertices)),
        degenerate_faces=degenerate,
        duplicate_faces=face_count - _distinct_rows(_sorted_corners(faces)),
        unused_vertices=count - used,
        components=_components(faces, count) - (count - used),
        euler_number=used - edges + face_count,
        volume=volume,
    )


def _edge_flaws(
    undirected: NDArray[np.int64], directed: NDArray[np.int64], count: int
) -> tuple[int, int, int]:
    """Edges, those with one face, and those with more than two or two of one direction; sorts in place."""
    undirected.sort()
    first = np.flatnonzero(np.r_[True, undirected[1:] != undirected[:-1]]) if len(undirected) else undirected
    faces_of_edge = np.diff(np.r_[first, len(undirected)])
    crowded = undirected[first[faces_of_edge > 2]]
    edges, boundary = len(first), int((faces_of_edge == 1).sum())
    del first, faces_of_edge
    directed.sort()
    repeated = directed[1:][directed[1:] == directed[:-1]]
    start, end = np.divmod(repeated, max(1, count))
    one_way = np.unique(np.minimum(start, end) * count + np.maximum(start, end))
    return edges, boundary, len(np.union1d(crowded, one_way))


def _components(faces: NDArray[np.integer], count: int) -> int:
    """Parts that hang together by vertices; an unused vertex is one.

    Each block's parts become stars, one edge from each vertex to its part's first, so that the graph of the
    whole holds vertices, not faces.
    """
    stars = [np.zeros((2, 0), np.int64)]
    for start in range(0, len(faces), BLOCK_FACES):
        used, rows = np.unique(faces[start : start + BLOCK_FACES], return_inverse=True)
        corners = rows.reshape(-1, 3).T
        part = joined_parts(
            np.concatenate([corners[:2], corners[1:]], axis=1), len(used)
        )  # two edges join a face
        _, first = np.unique(part, return_index=True)
        stars.append(np.stack([used, used[first[part]]]))
    return int(joined_parts(np.concatenate(stars, axis=1), count).max(initial=-1)) + 1


def joined_parts(edges: NDArray[np.integer], count: int) -> NDArray[np.int32]:
    """Number of the part of each of `count` nodes, joined by edges (2, E)."""
    if not count:
        return np.zeros(0, np.int32)
    graph = coo_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _sorted_corners(faces: NDArray[np.integer]) -> NDArray[np.int32]:
    """Corners (F, 3) of each face in ascending order, in blocks."""
    result = np.empty((len(faces), 3), np.int32)
    for start in range(0, len(faces), BLOCK_FACES):
        result[start : start + BLOCK_FACES] = np.sort(faces[start : start + BLOCK_FACES], axis=1)
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
