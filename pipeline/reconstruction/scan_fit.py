"""The fit to the scan: near its points they decide where the surface lies; the network decides everything else.

Implicit moving least squares (Kolluri 2005): at a place x the signed distance is the weighted mean of n_i . (x - p_i)
over the points near x, with normals n_i that the network's own field gives. A second weight compares each point's plane
with the network's distance at x (as robust implicit moving least squares does, Oztireli et al. 2009), so that points on
the other side of a thin wall, or off the surface altogether, count for nothing. Where points are few and noisy the
network, which looks farther around, knows better: the two are weighed by their precision.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

AGREEMENT_VOXELS = 0.75  # by which a point's plane may differ from the network's distance
# Voxels by which the network's surface may be off (0.04 to 0.09 in benchmarks/planes.py).
NETWORK_ERROR = 0.08
EXPECTED_NOISE = 0.1  # voxels; counts like one more point where there are too few to tell their noise
FULL_SUPPORT = 1.0  # sum of weights below which the fit is blended out
NEAR_VOXELS, FAR_VOXELS = 1.0, 2.0  # the network's distances between which the fit is blended out
REACH_CELLS = 3  # lattice cells around a point's own that its plane reaches at most
MOST_COUNTED = 4.0  # points of one cell that count each for itself


def cell_means(lattice_positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], Floats]:
    """One point for each occupied lattice cell: the mean of its points, and how much it counts.

    Args:
        lattice_positions: (N, 3) in lattice units.

    Returns:
        (C, 3) and (C,), in ascending order of the cells: a function of the points alone.
    """
    cells = np.floor(lattice_positions).astype(np.int64)
    low = cells.min(axis=0)
    span = cells.max(axis=0) - low + 1
    keys = ((cells - low) @ np.array([span[1] * span[2], span[2], 1])).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[first, len(ordered)])
    means = np.add.reduceat(lattice_positions[order], first, axis=0) / counts[:, None]
    # Rounding must not push a mean out of its cell.
    own = cells[order[first]]
    means = np.clip(means, own, np.nextafter(own + 1.0, own))
    return means, np.minimum(counts, MOST_COUNTED).astype(np.float32)


def band_around(cells: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Lattice points (X, Y, Z) that the fit may change: within `REACH_CELLS` - 1 of a corner of an occupied cell.

    Args:
        cells: (C, 3) occupied cells, relative to the array's first point; those outside are left out.
        shape: of the array of lattice points.
    """
    reach = REACH_CELLS - 1
    inside = ((cells >= -reach - 1) & (cells < np.asarray(shape) + reach)).all(axis=1)
    padded = np.zeros([side + 2 * (reach + 1) for side in shape], np.bool_)
    padded[tuple((cells[inside] + reach + 1).T)] = True
    for axis in range(3):  # a box of 2 (reach + 1) points: the cell's corners and `reach` more on both sides
        source = np.moveaxis(padded.copy(), axis, 0)
        target = np.moveaxis(padded, axis, 0)
        for step in range(1, reach + 1):
            target[:-step] |= source[step:]
        for step in range(1, reach + 2):
            target[step:] |= source[:-step]
    inner = slice(reach + 1, -(reach + 1))
    return padded[inner, inner, inner]


def fit_distances(
    network: Floats, points: NDArray[np.float64], counts: Floats, cells_per_voxel: int, radius: float
) -> Floats:
    """Distances at lattice points, moved to the scan's points where these are dense enough.

    Args:
        network: (X, Y, Z) the network's signed distances in voxels, positive outside; nan where unknown.
        points: (C, 3) one for each occupied cell, in lattice units from the first lattice point of `network`.
        counts: (C,) how much each counts.
        cells_per_voxel: lattice cells along a voxel.
        radius: of the weights, in voxels: more averages more noise and rounds edges more.

    Returns:
        (X, Y, Z) fitted distances; nan where the network's are.
    """
    shape = np.asarray(network.shape)
    cells = np.floor(points).astype(np.int64)
    normals, is_usable = _normals(network, points, cells)
    points, cells, normals, counts = (
        points[is_usable],
        cells[is_usable],
        normals[is_usable],
        counts[is_usable],
    )
    sums, weights = np.zeros(network.size, np.float32), np.zeros(network.size, np.float32)
    squares = np.zeros(network.size, np.float32)
    flat = network.ravel()
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    offset_in_cell = (points - cells).astype(np.float32)
    scale = np.float32(1 / cells_per_voxel)
    cutoff = 1.6 * radius
    steps = range(1 - REACH_CELLS, REACH_CELLS + 1)
    for offset in itertools.product(steps, repeat=3):
        nearest = [max(step - 1.0, 0.0) if step > 0 else float(-step) for step in offset]
        if np.linalg.norm(nearest) * scale > cutoff:
            continue
        away = (np.asarray(offset, np.float32) - offset_in_cell) * scale  # one point a cell: no target twice
        squared = _row_sums(away * away)
        target = cells + np.asarray(offset)
        rows = np.flatnonzero((squared < cutoff**2) & ((target >= 0) & (target < shape)).all(axis=1))
        index = target[rows] @ strides
        known = flat[index]
        plane = _row_sums(away[rows] * normals[rows])
        differs = (plane - known) / np.float32(AGREEMENT_VOXELS)
        weight = counts[rows] * np.exp(-squared[rows] / np.float32(radius**2) - differs**2)
        weight[np.isnan(weight)] = 0
        sums[index] += weight * plane
        weights[index] += weight
        squares[index] += weight * np.where(np.isnan(known), 0, (plane - known) ** 2)
    weight_sums = weights.reshape(network.shape)
    fitted = sums.reshape(network.shape) / np.maximum(weight_sums, 1e-12)
    # Both estimates count by their precision: the points' is that of a mean, from how far they scatter here.
    scatter = np.maximum(
        squares.reshape(network.shape) - weight_sums * np.nan_to_num(fitted - network) ** 2, 0
    )
    variance = (scatter + np.float32(EXPECTED_NOISE**2)) / (weight_sums + 1)
    share = weight_sums / (weight_sums + variance / np.float32(NETWORK_ERROR**2))
    share = share * _smooth(weight_sums / np.float32(FULL_SUPPORT))
    share = share * _smooth((np.float32(FAR_VOXELS) - np.abs(network)) / np.float32(FAR_VOXELS - NEAR_VOXELS))
    return np.asarray(network + share * (fitted - network), np.float32)


def _normals(
    network: Floats, points: NDArray[np.float64], cells: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Unit gradients (C, 3) of the network's distance at points, and where they are known."""
    shape = np.asarray(network.shape)
    is_usable = ((cells >= 1) & (cells < shape - 2)).all(axis=1)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    flat = network.ravel()
    upper = (points - cells).astype(np.float32)
    first = np.where(is_usable, cells @ strides, int(strides.sum()))
    slope = np.zeros((len(points), 3), np.float32)
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.ones(len(points), np.float32)
        for axis, side in enumerate(corner):
            weight *= upper[:, axis] if side else 1 - upper[:, axis]
        index = first + int(np.asarray(corner) @ strides)
        for axis, stride in enumerate(strides):
            slope[:, axis] += weight * (flat[index + stride] - flat[index - stride])
    length = np.linalg.norm(slope, axis=1)
    is_usable &= np.isfinite(length) & (length > 0.2)
    return slope / np.maximum(length, 1e-6)[:, None], is_usable


def _row_sums(rows: Floats) -> Floats:
    """Sums (N,) over three columns, by elementwise additions: a sum does not depend on the other rows."""
    return np.asarray(rows[:, 0] + rows[:, 1] + rows[:, 2])


def _smooth(share: Floats) -> Floats:
    """Smoothstep from 0 at 0 to 1 at 1."""
    t = np.clip(share, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
