"""Fewer faces for the same shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.meshes.checks import check_mesh
from preprocessing.native import load_open3d


def simplify(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Simplify a mesh by collapsing the edges that change its shape least.

    By Open3D's quadric decimation: it is told a number of faces and keeps thin parts. Manifold3d's `simplify` is told
    a tolerance and drops whole parts near it, and for equal faces was one to three times as far from the surface.
    What speaks for manifold3d is that it promises closed results; so this one is checked.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        most: how many faces to keep at most; more remain where only a change of topology would remove them.

    Returns:
        Vertices (W, 3) and faces (G, 3); the arguments themselves where there is nothing to remove.
        Watertight if the mesh was.

    Raises:
        MeshError: if a watertight mesh cannot be simplified so far and stay so.
        ValueError: if fewer than 4 faces are asked for: nothing closed has so few.
    """
    if most < 4:
        raise ValueError(f"a closed mesh has at least 4 faces, got {most}")
    if len(faces) <= most:
        return vertices, faces
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.ascontiguousarray(vertices, np.float64)),
        o3d.utility.Vector3iVector(np.ascontiguousarray(faces, np.int32)),
    )
    result = mesh.simplify_quadric_decimation(most)
    fewer_vertices = np.array(result.vertices, np.float64).reshape(-1, 3)
    fewer = np.array(result.triangles, np.int64).reshape(-1, 3)
    if not check_mesh(fewer_vertices, fewer).is_watertight and check_mesh(vertices, faces).is_watertight:
        raise MeshError(
            f"{len(faces):,} faces cannot become {most:,} and stay watertight; ask for more faces"
        )
    return fewer_vertices, fewer
