"""Winding numbers by summing the solid angle of every triangle: slow, exact to rounding, free of rays and trees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_PAIRS = 200_000  # query and triangle pairs at once: what fits into the processor's cache


def winding_numbers(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], queries: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How often a closed surface winds around each query: 1 inside a solid facing out, 0 outside.

    Args:
        vertices: (V, 3); faces: (F, 3), counter-clockwise seen from outside.
        queries: (N, 3).

    Returns:
        (N,) float64, whole numbers to rounding for a closed surface.

    Van Oosterom and Strackee 1983: tan(angle / 2) = det(a, b, c) / (|a||b||c| + a.b|c| + b.c|a| + c.a|b|),
    with a, b, c from the query to the corners.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    result = np.empty(len(queries))
    step = max(1, BLOCK_PAIRS // len(faces))
    for start in range(0, len(queries), step):
        block = np.asarray(queries[start : start + step], np.float64)
        # One array for each coordinate: ax, ay, az, bx, ... of shape (queries, faces).
        a, b, c = ([corners[:, i, axis] - block[:, axis, None] for axis in range(3)] for i in range(3))
        na, nb, nc = (np.sqrt(x * x + y * y + z * z) for x, y, z in (a, b, c))
        ab, bc, ca = (p[0] * q[0] + p[1] * q[1] + p[2] * q[2] for p, q in ((a, b), (b, c), (c, a)))
        determinant = (
            a[0] * (b[1] * c[2] - b[2] * c[1])
            + a[1] * (b[2] * c[0] - b[0] * c[2])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
        )
        half_angle = np.arctan2(determinant, na * nb * nc + ab * nc + bc * na + ca * nb)
        result[start : start + step] = half_angle.sum(axis=1) / (2 * np.pi)
    return result
