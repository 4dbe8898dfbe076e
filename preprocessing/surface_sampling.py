"""Points drawn uniformly from the surface of a triangle mesh."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError


def sample_surface(
    vertices: NDArray[np.float64],
    faces: NDArray[np.integer],
    count: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw points uniformly by area.

    Args:
        vertices: (V, 3).
        faces: (F, 3) rows of `vertices`, counter-clockwise seen from outside.
        count: number of points N.
        rng: the only source of chance.

    Returns:
        (N, 3) float64 points and the (N, 3) float64 unit outward normals of their faces.

    Raises:
        MeshError: if the mesh has no area.
    """
    chosen, weights = sample_faces(vertices, faces, count, rng)
    return place_samples(vertices, faces, chosen, weights)


def sample_faces(
    vertices: NDArray[np.float64],
    faces: NDArray[np.integer],
    count: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw places on a surface uniformly by area: (N,) faces and (N, 3) barycentric weights.

    Arguments and errors as `sample_surface`. Square-root barycentric sampling: Osada et al. 2002, "Shape
    distributions", section 4.2.
    """
    first, second, third = np.moveaxis(np.asarray(vertices, np.float64)[faces], 1, 0)
    doubled = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    cumulative = np.cumsum(doubled)
    if len(cumulative) == 0 or not cumulative[-1] > 0:
        raise MeshError("the mesh has no area to sample; check that it has faces and finite vertices")
    # side="right" never picks a triangle of area 0.
    chosen = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    chosen = np.minimum(chosen, len(cumulative) - 1)
    root, along = np.sqrt(rng.random(count)), rng.random(count)
    return chosen, np.stack([1 - root, root * (1 - along), root * along], axis=1)


def place_samples(
    vertices: NDArray[np.float64],
    faces: NDArray[np.integer],
    chosen: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and unit normals (N, 3) of the places that `sample_faces` drew, on any pose of the mesh."""
    first, second, third = np.moveaxis(np.asarray(vertices, np.float64)[faces[chosen]], 1, 0)
    cross = np.cross(second - first, third - first)
    normals = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)
    return weights[:, :1] * first + weights[:, 1:2] * second + weights[:, 2:] * third, normals
