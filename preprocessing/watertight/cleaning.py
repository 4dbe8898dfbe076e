"""A triangle soup as files hold it, made fit to be measured: no repeated vertices, no empty or repeated faces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.meshes.checks import joined_parts
from preprocessing.native import load_open3d

LARGEST_COORDINATE = 1e6  # times the object's size: beyond, single precision no longer holds the shape
SMALLEST_BULK = 1e-3  # share of the bounding box that the middle 98% of the vertices must span
FEWEST_FOR_BULK = 5  # vertices: of fewer, none can be called stray

Soup = tuple[NDArray[np.float64], NDArray[np.int64]]


def clean_soup(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Soup:
    """Merge vertices of equal position, drop faces without area and all but one of faces with the same corners.

    Args:
        vertices: (V, 3); faces: (F, 3).

    Returns:
        (V', 3) used vertices and (F', 3) faces.

    Raises:
        MeshError: if a vertex is not finite, coordinates are too large for the object's size, a few stray
            vertices stretch the bounding box, or nothing with an area remains.
    """
    if not len(faces):
        raise MeshError("holds no faces")
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices).all(axis=1)).sum())
        raise MeshError(f"{bad:,} of {len(vertices):,} vertices are not finite; export it again")
    # Adding zero turns -0.0 into 0.0, which is another key but the same position.
    positions, rows = np.unique(vertices + 0.0, axis=0, return_inverse=True)
    faces = rows.reshape(-1)[faces]
    used = positions[np.unique(faces)]
    size = float((used.max(axis=0) - used.min(axis=0)).max())
    largest = float(np.abs(used).max())
    if size and largest > LARGEST_COORDINATE * size:
        raise MeshError(
            f"coordinates reach {largest:.3g} at a size of {size:.3g}: single precision cannot hold such a shape; "
            "move it to the origin where it was made, and export it again"
        )
    if len(used) >= FEWEST_FOR_BULK:
        outermost = max(1, len(used) // 100)
        ordered = np.sort(used, axis=0)
        bulk = float((ordered[-1 - outermost] - ordered[outermost]).max())
        if bulk < SMALLEST_BULK * size:
            raise MeshError(
                f"nearly all vertices lie within {bulk:.3g}, the others stretch it to {size:.3g}: "
                "stray vertices; remove them and export it again"
            )
    first, second, third = np.moveaxis(positions[faces], 1, 0)
    area = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    faces = faces[area > 1e-14 * size * size]
    if not len(faces):
        raise MeshError("has no face with an area")
    _, kept = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    faces = faces[np.sort(kept)]
    named, rows = np.unique(faces, return_inverse=True)
    return positions[named], rows.reshape(-1, 3)


def edge_use(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of faces of each undirected edge."""
    ends = np.sort(np.stack([faces.ravel(), np.roll(faces, -1, axis=1).ravel()], axis=1), axis=1)
    keys = ends[:, 0] * (int(faces.max(initial=0)) + 1) + ends[:, 1]
    return np.asarray(np.unique(keys, return_counts=True)[1])


def orient(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Turn faces until neighbors agree and every part has a positive volume; None where that cannot be.

    Args:
        vertices, faces: a mesh whose every edge has two faces.
    """
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces.astype(np.int32))
    )
    if not mesh.orient_triangles():
        return None
    turned = np.asarray(mesh.triangles).astype(np.int64)
    part = face_parts(turned, len(vertices))
    corners = (vertices - vertices.mean(axis=0))[turned]
    volume = np.bincount(
        part, weights=np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    )
    inward = volume[part] < 0
    turned[inward] = turned[inward][:, ::-1]
    return turned


def face_parts(faces: NDArray[np.int64], vertex_count: int) -> NDArray[np.int64]:
    """(F,) number of the part of each face; parts hang together by edges, not by a vertex that they share."""
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1)
    edges, edge = np.unique(ends[..., 0] * vertex_count + ends[..., 1], return_inverse=True)
    # A face is joined with its edges, which are nodes behind the faces.
    uses = np.stack([np.repeat(np.arange(len(faces)), 3), len(faces) + edge.ravel()])
    return joined_parts(uses, len(faces) + len(edges))[: len(faces)].astype(np.int64)
