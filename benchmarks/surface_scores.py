"""F-scores and normal consistency of many meshes against one large reference that need not be closed.

The measures are those of `preprocessing.metrics`; here the reference is sampled and its ray tree built once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.metrics import nearest_on_surface
from preprocessing.native import load_open3d, ray_threads
from preprocessing.surface_sampling import sample_surface

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]


@dataclass(frozen=True)
class SurfaceScore:
    """A mesh against a reference.

    Attributes:
        precision, recall, f_score: one for each distance.
        normal_consistency, normal_consistency_signed: means of the cosines both ways.
    """

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f_score: tuple[float, ...]
    normal_consistency: float
    normal_consistency_signed: float


class SurfaceReference:
    """A surface to measure against.

    Args:
        vertices, faces: (V, 3) and (F, 3), no part of it buried.
        samples: on it, and on each mesh.
        seed: of all samples.
    """

    def __init__(self, vertices: Floats, faces: Faces, samples: int, seed: int = 0) -> None:
        self._o3d = load_open3d()
        self._samples, self._seed = samples, seed
        self._points, self._normals = sample_surface(vertices, faces, samples, np.random.default_rng(seed))
        self._center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
        self._scene = self._o3d.t.geometry.RaycastingScene(nthreads=ray_threads())
        self._scene.add_triangles(
            self._o3d.core.Tensor((vertices - self._center).astype(np.float32)),
            self._o3d.core.Tensor(faces.astype(np.uint32)),
        )

    def score(self, vertices: Floats, faces: Faces, distances: tuple[float, ...]) -> SurfaceScore:
        """Measure a mesh at some distances; one without faces scores 0 everywhere."""
        if not len(faces):
            none = (0.0,) * len(distances)
            return SurfaceScore(none, none, none, 0.0, 0.0)
        rng = np.random.default_rng([self._seed, 1])
        points, normals = sample_surface(vertices, faces, self._samples, rng)
        local = (points - self._center).astype(np.float32)
        found = self._scene.compute_closest_points(self._o3d.core.Tensor(local), nthreads=ray_threads())
        to_reference = np.linalg.norm(found["points"].numpy().astype(np.float64) - local, axis=1)
        there = found["primitive_normals"].numpy().astype(np.float64)
        to_mesh, here = nearest_on_surface(vertices, faces, self._points)
        cosines = np.concatenate([(normals * there).sum(axis=1), (self._normals * here).sum(axis=1)])
        cosines = cosines[np.isfinite(cosines)]
        precision = tuple(float((to_reference < distance).mean()) for distance in distances)
        recall = tuple(float((to_mesh < distance).mean()) for distance in distances)
        return SurfaceScore(
            precision,
            recall,
            tuple(2 * p * r / max(p + r, 1e-12) for p, r in zip(precision, recall, strict=True)),
            float(np.abs(cosines).mean()),
            float(cosines.mean()),
        )
