"""How finely a scan resolves its surface: the spacing of its points and their noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import dropwhile

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

PROBES = 4096
NEIGHBOURS = 8  # of a probe, for the spacing
PATCH = 32  # nearest points of a probe, to which a quadric is fitted for the noise
THINNINGS = 5  # scales at which patches are looked at, each with a quarter of the points of the one before
FLAT = 0.3  # largest share of a flat patch's smallest extent in its middle one, as variances
ROUND = 0.1  # smallest share of a patch's middle extent in its largest one, as variances
FEWEST_FLAT = 0.1  # share of the patches, below which a scale says nothing about the noise
STEADY = 1.2  # growth of the noise from one scale to the next, above which it is the shape's
# Quartile of the patches' noise, and its share of the true one (chi, 26 degrees).
QUARTER, OF_QUARTER = 0.25, 0.895
TWO_SHEETS = 2.0  # kurtosis of the distances from a plane: 3 of noise, 1 of the two sides of a thin board

VOXELS_PER_SPACING = 1.8  # about three points on each voxel of an evenly scanned surface
VOXELS_PER_NOISE = 5.0  # noise of a fifth of a voxel, which the fit to the scan averages out
FEWEST_PER_SPACING, FEWEST_PER_NOISE = 1.0, 2.5  # below: finer than the scan


@dataclass(frozen=True)
class Granularity:
    """What a scan resolves.

    Attributes:
        spacing: meters; the side of the square that one point stands for, in the median. 0 where unknown.
        noise: meters; standard deviation of the points across the surface. 0 where unknown.
    """

    spacing: float
    noise: float

    @property
    def voxel_size(self) -> float:
        """Meters, to two digits: so many times the spacing or the noise, whichever is more. 0 where unknown."""
        return float(f"{max(VOXELS_PER_SPACING * self.spacing, VOXELS_PER_NOISE * self.noise):.2g}")

    def supports(self, voxel_size: float) -> bool:
        """Whether it shows a surface at this voxel: a point on each of its faces, and noise below two fifths of it."""
        return voxel_size >= max(FEWEST_PER_SPACING * self.spacing, FEWEST_PER_NOISE * self.noise)

    def __str__(self) -> str:
        noise = f"{self.noise:.2g} m" if self.noise else "unknown"
        return f"points {self.spacing:.2g} m apart, noise {noise}"


def measure_granularity(chunks: Iterable[NDArray[np.float64]], probes: NDArray[np.float64]) -> Granularity:
    """Spacing and noise of a scan.

    The eighth nearest of a probe's neighbors at distance r means 8 points on a disc of area pi r^2; the spacing is the
    side of one point's square. The noise is the distance of a patch of points from a quadric, which no curvature
    enlarges, over the patches that are flat: from their lower quartile, as edges and thin parts enlarge it. Where it
    is larger than the spacing the nearest points fill a ball; so patches of thinned points, which are wider, are looked
    at too.

    A position counts once, however often and in whichever pieces it is repeated, so merged scans of one spot change
    nothing.

    Args:
        chunks: the whole scan, in pieces (N, 3); memory is bounded by one piece.
        probes: (P, 3) points of the scan at which to look.

    Returns:
        spacing 0 where fewer than nine distinct points exist.
    """
    nearest = [_Nearest(probes, PATCH) for _ in range(THINNINGS)]
    for chunk in chunks:
        points, mixed = distinct_points(chunk)
        for thinning, found in enumerate(nearest):
            found.add(points[mixed % np.uint64(4**thinning) == 0])
    radius = nearest[0].distances[:, NEIGHBOURS]  # the nearest is the probe itself
    radius = radius[np.isfinite(radius)]
    if not len(radius):
        return Granularity(0.0, 0.0)
    spacing = float(np.median(radius) * np.sqrt(np.pi / NEIGHBOURS))
    return Granularity(
        spacing, _noise([found.places[np.isfinite(found.distances[:, -1])] for found in nearest])
    )


def _noise(scales: list[NDArray[np.float64]]) -> float:
    """Noise from patches (P, K, 3) at several scales; 0 where none is flat.

    The first scale with flat patches counts, and wider ones as long as more of their patches are flat, and either twice
    as many or with the same noise: wider patches tell noise better, but that of curved or thin shapes grows with width.
    """
    flatness = dropwhile(lambda scale: scale.share < FEWEST_FLAT, map(_flatness, scales))
    chosen = next(flatness, None)
    if chosen is None or chosen.kurtosis < TWO_SHEETS:
        return 0.0
    for wider in flatness:
        is_steady = wider.share >= chosen.share and wider.noise <= STEADY * chosen.noise
        if not is_steady and wider.share < 2 * chosen.share:
            break
        chosen = wider
    return chosen.noise


@dataclass(frozen=True)
class _Flatness:
    """Patches of one scale: the share that is flat; the noise of these in meters, and their kurtosis in the median."""

    share: float
    noise: float
    kurtosis: float


def _flatness(places: NDArray[np.float64]) -> _Flatness:
    centered = places - places.mean(axis=1, keepdims=True)
    extents, axes = np.linalg.eigh(np.swapaxes(centered, 1, 2) @ centered / places.shape[1])
    is_round = extents[:, 1] > ROUND * extents[:, 2]  # not along an edge, or with a stray point
    is_flat = is_round & (extents[:, 0] < FLAT * extents[:, 1])
    if not is_flat.any():
        return _Flatness(0.0, 0.0, np.inf)
    size = np.sqrt(extents[is_flat, 2])[:, None]
    across, first, second = np.moveaxis(centered[is_flat] @ axes[is_flat], 2, 0) / size
    terms = np.stack([np.ones_like(first), first, second, first**2, first * second, second**2], axis=2)
    basis = np.linalg.qr(terms).Q
    left = across - (basis @ (np.swapaxes(basis, 1, 2) @ across[..., None]))[..., 0]
    variance = (left**2).sum(axis=1) / (left.shape[1] - terms.shape[2])
    kurtosis = (across**4).mean(axis=1) / np.maximum((across**2).mean(axis=1) ** 2, 1e-300)
    noise = float(np.quantile(np.sqrt(variance) * size[:, 0], QUARTER) / OF_QUARTER)
    return _Flatness(float(is_flat.mean()), noise, float(np.median(kurtosis)) if noise else np.inf)


class _Nearest:
    """The nearest distinct points of probes, over all pieces of a scan."""

    def __init__(self, probes: NDArray[np.float64], count: int) -> None:
        self.probes = probes
        self.distances = np.full((len(probes), count), np.inf)
        self.places = np.zeros((len(probes), count, 3))

    def add(self, points: NDArray[np.float64]) -> None:
        """Look at a piece (N, 3) without repetitions of its own."""
        count = min(self.distances.shape[1], len(points))
        if not count:
            return
        found, rows = cKDTree(points).query(self.probes, k=range(1, count + 1), workers=-1)
        distances = np.concatenate([self.distances, found], axis=1)
        places = np.concatenate([self.places, points[rows]], axis=1)
        order = np.lexsort((places[..., 2], places[..., 1], places[..., 0], distances), axis=-1)
        distances = np.take_along_axis(distances, order, axis=1)
        places = np.take_along_axis(places, order[..., None], axis=1)
        is_repeated = (distances[:, 1:] == distances[:, :-1]) & (places[:, 1:] == places[:, :-1]).all(axis=2)
        distances[:, 1:][is_repeated] = np.inf
        chosen = np.argsort(distances, axis=1, kind="stable")[:, : self.distances.shape[1]]
        self.distances = np.take_along_axis(distances, chosen, axis=1)
        self.places = np.take_along_axis(places, chosen[..., None], axis=1)


def distinct_points(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Points (N, 3) without repetitions, which would look like density, and a number for each position: its hash."""
    bits = np.ascontiguousarray(points + 0.0).view(np.uint64)  # + 0.0: one zero instead of two
    mixed = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29)) ^ bits[:, 1]) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(32)) ^ bits[:, 2]) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    numbers, first = np.unique(mixed, return_index=True)
    return points[first], numbers
