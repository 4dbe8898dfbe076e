"""Whether a mesh is closed, oriented and clean: exact counts over its edges, vertices and faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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


def check_mesh(vertices: NDArray[np.float64], triangles: NDArray[np.integer]) -> MeshCheck:
    """Count a mesh's flaws.

    Args:
        vertices: (V, 3) float64.
        triangles: (F, 3) integers below V.
    """
    faces = np.asarray(triangles, np.int64)
    start = faces.ravel()
    end = faces[:, [1, 2, 0]].ravel()
    is_forward = start < end
    keys = np.minimum(start, end) * max(1, len(vertices)) + np.maximum(start, end)
    order = np.argsort(keys)
    keys, is_forward = keys[order], is_forward[order]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    counts = np.diff(np.r_[first, len(keys)])
    forward = np.add.reduceat(is_forward.astype(np.int64), first) if len(first) else counts
    corners = vertices[faces] if len(faces) else np.zeros((0, 3, 3))
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    repeated = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    return MeshCheck(
        vertices=len(vertices),
        faces=len(faces),
        boundary_edges=int((counts == 1).sum()),
        nonmanifold_edges=int(((counts > 2) | ((counts == 2) & (forward != 1))).sum()),
        duplicate_vertices=len(vertices) - _distinct_rows(vertices),
        degenerate_faces=int((repeated | ~cross.any(axis=1)).sum()),
        duplicate_faces=len(faces) - _distinct_rows(np.sort(faces, axis=1)),
        unused_vertices=len(vertices) - len(np.unique(faces)),
        volume=float((corners[:, 0] * cross).sum() / 6.0),
    )


def _distinct_rows(rows: NDArray[np.generic]) -> int:
    if not len(rows):
        return 0
    ordered = rows[np.lexsort(rows.T)]
    return 1 + int((ordered[1:] != ordered[:-1]).any(axis=1).sum())
