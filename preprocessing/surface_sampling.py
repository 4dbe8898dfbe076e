"""Points drawn uniformly from the surface of a triangle mesh."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError


def sample_surface(
    vertices: NDArray[np.float64],
    triangles: NDArray[np.integer],
    count: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw points uniformly by area.

    Args:
        vertices: (V, 3).
        triangles: (F, 3) rows of `vertices`, counter-clockwise seen from outside.
        count: number of points N.
        rng: the only source of chance.

    Returns:
        (N, 3) float64 points and the (N, 3) float64 unit outward normals of their triangles.

    Raises:
        MeshError: if the mesh has no area.

    Square-root barycentric sampling: Osada et al. 2002, "Shape distributions", section 4.2.
    """
    first, second, third = np.moveaxis(np.asarray(vertices, np.float64)[triangles], 1, 0)
    cross = np.cross(second - first, third - first)
    doubled = np.linalg.norm(cross, axis=1)
    cumulative = np.cumsum(doubled)
    if len(cumulative) == 0 or not cumulative[-1] > 0:
        raise MeshError("the mesh has no area to sample; check that it has triangles and finite vertices")
    # side="right" never picks a triangle of area 0.
    chosen = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    chosen = np.minimum(chosen, len(cumulative) - 1)
    root, along = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - root) * first[chosen] + root * (1 - along) * second[chosen] + root * along * third[chosen]
    return points, cross[chosen] / doubled[chosen, None]
