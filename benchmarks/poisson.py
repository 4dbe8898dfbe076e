"""The peer: Open3D's screened Poisson reconstruction, at several depths and with several trims."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from preprocessing.native import load_open3d

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]

DENSITY_TRIMS = (0.0, 0.02, 0.05, 0.1, 0.2)  # share of the vertices cut off, the least supported first


@dataclass(frozen=True)
class PoissonMesh:
    """One variant.

    Attributes:
        depth: of the octree.
        trim: which vertices were cut off, in words.
        vertices, faces: what is left.
        seconds: of the reconstruction; the trim costs next to nothing.
    """

    depth: int
    trim: str
    vertices: Floats
    faces: Faces
    seconds: float


def poisson_meshes(
    points: Floats, normals: Floats, depth: int, tree: cKDTree, reach: float
) -> Iterator[PoissonMesh]:
    """One depth: every trim by density, and what lies within `reach` of a point.

    Args:
        points, normals: (N, 3), normals out of the surface.
        depth: of the octree.
        tree: of the points.
        reach: meters.
    """
    o3d = load_open3d()
    middle = points.mean(axis=0)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points - middle))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    started = time.monotonic()
    mesh, support = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth)
    seconds = time.monotonic() - started
    vertices = np.asarray(mesh.vertices) + middle
    faces = np.asarray(mesh.triangles).astype(np.int64)
    density = np.asarray(support)
    for share in DENSITY_TRIMS:
        kept = density >= np.quantile(density, share)
        yield PoissonMesh(depth, f"density {share:.0%}", vertices, faces[kept[faces].all(axis=1)], seconds)
    near = within_reach(vertices, tree, reach)
    yield PoissonMesh(depth, "near points", vertices, faces[near[faces].all(axis=1)], seconds)


def within_reach(vertices: Floats, tree: cKDTree, reach: float) -> NDArray[np.bool_]:
    """Which of (V, 3) vertices have a point of the tree within `reach`."""
    distance, _ = tree.query(vertices, distance_upper_bound=reach, workers=-1)
    near: NDArray[np.bool_] = np.isfinite(distance)
    return near
