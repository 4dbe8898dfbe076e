"""The fit to the scan: near its points they decide where the surface lies; the network decides everything else.

Implicit moving least squares (Kolluri 2005): at a place x the signed distance is the weighted mean of n_i . (x - p_i)
over the points near x, with normals n_i that the network's own field gives. A second weight compares each point's plane
with the network's distance at x (as robust implicit moving least squares does, Oztireli et al. 2009), so that points on
the other side of a thin wall, or off the surface altogether, count for nothing. Where points are few and noisy the
network, which looks farther around, knows better: the two are weighed by their precision.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

AGREEMENT_VOXELS = 0.75  # by which a point's plane may differ from the network's distance
# Voxels by which the network's surface may be off (0.04 to 0.09 in benchmarks/planes.py).
NETWORK_ERROR = 0.08
EXPECTED_NOISE = 0.1  # voxels; counts like one more point where there are too few to tell their noise
FULL_SUPPORT = 1.0  # sum of weights below which the fit is blended out
NEAR_VOXELS, FAR_VOXELS = 1.0, 2.0  # the network's distances between which the fit is blended out
BAND_CELLS = 2  # lattice points around the corners of a point's cell that the fit may change
REACH_RADII = 1.6  # of a point's plane
NARROW_RADIUS = 0.6  # voxels
SAME_VOXELS = 0.1  # by which a wide fit of a plane may differ from a narrow one
LEAST_RADIUS, RADIUS_PER_NOISE, MOST_RADIUS = 0.8, 4.0, 1.6  # of the fit by default, voxels
MOST_COUNTED = 4.0  # points of one cell that count each for itself


def radius_for_noise(noise: float) -> float:
    """Radius of the fit in voxels that suits a scan's noise in voxels: as small as its noise allows.

    A fit of less than a voxel gains nothing on clean scans; with noise of a fifth of a voxel planes need 1.6.
    """
    return min(LEAST_RADIUS + RADIUS_PER_NOISE * noise, MOST_RADIUS)


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
    """Lattice points (X, Y, Z) that the fit may change: within `BAND_CELLS` of a corner of an occupied cell.

    Args:
        cells: (C, 3) occupied cells, relative to the array's first point; those outside are left out.
        shape: of the array of lattice points.
    """
    reach = BAND_CELLS
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

    A wide fit averages more noise, but rounds edges and thins thin parts, where it differs from a narrow one; there the
    narrow one counts.

    Args:
        network: (X, Y, Z) the network's signed distances in voxels, positive outside; nan where unknown.
        points: (C, 3) one for each occupied cell, in lattice units from the first lattice point of `network`.
        counts: (C,) how much each counts.
        cells_per_voxel: lattice cells along a voxel.
        radius: of the wide fit's weights, in voxels.

    Returns:
        (X, Y, Z) fitted distances; nan where the network's are.
    """
    cells = np.floor(points).astype(np.int64)
    normals, is_usable = _normals(network, points, cells)
    usable = (points[is_usable], cells[is_usable], normals[is_usable], counts[is_usable])
    narrow = _fit(network, *usable, cells_per_voxel, min(radius, NARROW_RADIUS))
    if radius <= NARROW_RADIUS:
        return narrow
    differs = _fit(network, *usable, cells_per_voxel, radius) - narrow
    return np.asarray(narrow + np.exp(-((differs / np.float32(SAME_VOXELS)) ** 2)) * differs, np.float32)


def _fit(
    network: Floats,
    points: NDArray[np.float64],
    cells: NDArray[np.int64],
    normals: Floats,
    counts: Floats,
    cells_per_voxel: int,
    radius: float,
) -> Floats:
    """Distances at lattice points, fitted with weights of one radius to points (C, 3) with these cells and normals."""
    # By columns, and in an array with a margin: this loop takes most of the time.
    normal_x, normal_y, normal_z = np.ascontiguousarray(normals.T)
    scale = np.float32(1 / cells_per_voxel)
    inside = np.ascontiguousarray(((points - cells) * scale).astype(np.float32).T)
    cutoff = REACH_RADII * radius
    reach = math.ceil(cutoff * cells_per_voxel)
    margin = reach + 1
    padded = np.pad(np.where(np.abs(network) < FAR_VOXELS, network, np.nan), margin, constant_values=np.nan)
    known, strides = padded.ravel(), np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    own = (cells + margin) @ strides
    sums, weights, squares = np.zeros((3, padded.size), np.float32)
    for offset in itertools.product(range(1 - reach, reach + 1), repeat=3):
        nearest = [max(step - 1.0, 0.0) if step > 0 else float(-step) for step in offset]
        if np.linalg.norm(nearest) * scale > cutoff:
            continue
        x, y, z = np.asarray(offset, np.float32)[:, None] * scale - inside
        squared = x * x + y * y + z * z
        target = own + int(np.asarray(offset) @ strides)  # one point a cell: no target twice
        network_there = known[target]
        rows = np.flatnonzero((squared < cutoff**2) & np.isfinite(network_there))
        target, network_there = target[rows], network_there[rows]
        plane = x[rows] * normal_x[rows] + y[rows] * normal_y[rows] + z[rows] * normal_z[rows]
        differs = plane - network_there
        weight = counts[rows] * np.exp(
            squared[rows] * np.float32(-1 / radius**2) - (differs / np.float32(AGREEMENT_VOXELS)) ** 2
        )
        sums[target] += weight * plane
        weights[target] += weight
        squares[target] += weight * differs**2
    inner = (slice(margin, -margin),) * 3
    sums, weights, squares = (array.reshape(padded.shape)[inner] for array in (sums, weights, squares))
    fitted = sums / np.maximum(weights, 1e-12)
    # Both estimates count by their precision: the points' is that of a mean, from how far they scatter here.
    scatter = np.maximum(squares - weights * np.nan_to_num(fitted - network) ** 2, 0)
    variance = (scatter + np.float32(EXPECTED_NOISE**2)) / (weights + 1)
    share = weights / (weights + variance / np.float32(NETWORK_ERROR**2))
    share = share * _smooth(weights / np.float32(FULL_SUPPORT))
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


def _smooth(share: Floats) -> Floats:
    """Smoothstep from 0 at 0 to 1 at 1."""
    t = np.clip(share, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
