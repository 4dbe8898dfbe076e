"""The point spacing of a scan, from which the voxel size follows when the user names none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

NEIGHBOURS = 8
PROBES = 4096
VOXELS_PER_SPACING = 3.0  # about nine points on each voxel of an evenly scanned surface


def median_spacing(chunks: Iterable[NDArray[np.float64]], probes: NDArray[np.float64]) -> float:
    """Median distance between neighbouring points, as the side of the square that one point stands for.

    The eighth nearest of a probe's neighbours at distance r means 8 points on a disc of area pi r^2.
    A position counts once, however often and in whichever pieces it is repeated, and a probe's own not at all, so
    merged scans of one spot change nothing.

    Args:
        chunks: the whole scan, in pieces (N, 3); memory is bounded by one piece.
        probes: (P, 3) points of the scan at which to look.

    Returns:
        metres; 0 where fewer than nine distinct points exist.
    """
    distances = np.full((len(probes), NEIGHBOURS), np.inf)
    places = np.zeros((len(probes), NEIGHBOURS, 3))
    for chunk in chunks:
        points = distinct_points(chunk)
        count = min(NEIGHBOURS + 1, len(points))  # one of them may be the probe itself
        found, rows = cKDTree(points).query(probes, k=range(1, count + 1), workers=-1)
        found[found == 0] = np.inf
        distances, places = _nearest_distinct(
            np.concatenate([distances, found], axis=1), np.concatenate([places, points[rows]], axis=1)
        )
    radius = distances[:, -1]
    radius = radius[np.isfinite(radius)]
    return float(np.median(radius) * np.sqrt(np.pi / NEIGHBOURS)) if len(radius) else 0.0


def _nearest_distinct(
    distances: NDArray[np.float64], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The nearest `NEIGHBOURS` of each row's candidates (P, C) at places (P, C, 3), each place once."""
    order = np.lexsort((places[..., 2], places[..., 1], places[..., 0], distances), axis=-1)
    distances = np.take_along_axis(distances, order, axis=1)
    places = np.take_along_axis(places, order[..., None], axis=1)
    is_repeated = (distances[:, 1:] == distances[:, :-1]) & (places[:, 1:] == places[:, :-1]).all(axis=2)
    distances[:, 1:][is_repeated] = np.inf
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    return (
        np.take_along_axis(distances, nearest, axis=1),
        np.take_along_axis(places, nearest[..., None], axis=1),
    )


def distinct_points(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 3) without repetitions: repeated neighbours would look like density."""
    bits = np.ascontiguousarray(points + 0.0).view(np.uint64)  # + 0.0: one zero instead of two
    mixed = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29)) ^ bits[:, 1]) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(32)) ^ bits[:, 2]) * np.uint64(0x94D049BB133111EB)
    _, first = np.unique(mixed, return_index=True)
    return points[first]
