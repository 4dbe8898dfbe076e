"""Fewer faces for the same shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.mesh_checks import check_mesh
from preprocessing.native import load_open3d


def simplify(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], faces: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Simplify a mesh by collapsing the edges that change its shape least.

    By Open3D's quadric decimation: it is told a number of faces and keeps thin parts. Manifold3d's `simplify` is told
    a tolerance and drops whole parts near it, and for equal faces was one to three times as far from the surface.
    What speaks for manifold3d is that it promises closed results; so this one is checked.

    Args:
        vertices: (V, 3).
        triangles: (F, 3).
        faces: how many to keep at most; more remain where only a change of topology would remove them.

    Returns:
        Vertices (W, 3) and triangles (G, 3); the arguments themselves where there is nothing to remove.
        Watertight if the mesh was.

    Raises:
        MeshError: if a watertight mesh cannot be simplified so far and stay so.
        ValueError: if fewer than 4 faces are asked for: nothing closed has so few.
    """
    if faces < 4:
        raise ValueError(f"a closed mesh has at least 4 faces, got {faces}")
    if len(triangles) <= faces:
        return vertices, triangles
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.ascontiguousarray(vertices, np.float64)),
        o3d.utility.Vector3iVector(np.ascontiguousarray(triangles, np.int32)),
    )
    result = mesh.simplify_quadric_decimation(faces)
    fewer_vertices = np.array(result.vertices, np.float64).reshape(-1, 3)
    fewer = np.array(result.triangles, np.int64).reshape(-1, 3)
    if not check_mesh(fewer_vertices, fewer).is_watertight and check_mesh(vertices, triangles).is_watertight:
        raise MeshError(
            f"{len(triangles):,} faces cannot become {faces:,} and stay watertight; ask for more faces"
        )
    return fewer_vertices, fewer
