"""One seed to one training shape: surface or scan points and labelled queries in the unit cube."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.buildings import BuildingConfig, building
from preprocessing.dataset import DatasetLayout, ShapeSamples
from preprocessing.scanner import ScannerConfig, place_stations, scan
from preprocessing.surface_sampling import sample_surface
from preprocessing.synthetic_rooms import synthetic_room

CATEGORIES = ("room", "building")
WINDOWS_PER_BUILDING = 8
PADDED_SIDE = 1.1  # queries reach 5% of the side beyond the unit cube on each side (Peng et al. 2020)
NEAR_SIGMAS = (0.004, 0.02)  # of the unit cube
WINDOW_SIDE_M = 6.0
FEWEST_WINDOW_POINTS = 8_000

Occupancy = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class SplitShares:
    """Shares of the validation and test splits; the rest trains."""

    val: float = 0.04
    test: float = 0.04

    def of(self, seed: int) -> str:
        """The split of a seed: decided by the seed alone, so adding shapes moves none."""
        draw = np.random.default_rng([seed, 977]).random()
        return "test" if draw < self.test else "val" if draw < self.test + self.val else "train"


def room_samples(seed: int, layout: DatasetLayout) -> ShapeSamples:
    """A paper-style synthetic room, uniformly sampled, without noise (the sampler adds it)."""
    scene = synthetic_room(seed)
    rng = np.random.default_rng([seed, 1])
    vertices, triangles = scene.mesh()
    points, normals = sample_surface(vertices, triangles, layout.points, rng)
    around, _ = sample_surface(vertices, triangles, layout.near_queries, rng)
    uniform = rng.uniform(-PADDED_SIDE / 2, PADDED_SIDE / 2, (layout.uniform_queries, 3))
    return _label(
        scene.occupancy,
        points,
        normals,
        False,
        uniform,
        around,
        np.zeros(3),
        1.0,
        "room",
        f"room-{seed:08d}",
        seed,
        rng,
    )


def building_windows(seed: int, layout: DatasetLayout) -> list[ShapeSamples]:
    """Cubic windows of one furnished building, alternately scanned from stations and sampled uniformly."""
    rng = np.random.default_rng([seed, 2])
    config = BuildingConfig(
        seed=seed,
        size_x=float(rng.uniform(7, 14)),
        size_y=float(rng.uniform(6, 12)),
        floors=int(rng.integers(1, 3)),
    )
    scene = building(config)
    vertices, triangles = scene.mesh()
    stations = place_stations(scene, int(rng.integers(6, 14)), rng)
    scanner = ScannerConfig(
        rays_per_station=int(rng.integers(150_000, 350_000)),
        noise_base_m=float(rng.uniform(0.001, 0.008)),
        noise_per_metre=float(rng.uniform(0.0, 0.001)),
        outlier_fraction=float(rng.uniform(0.0, 0.004)),
    )
    scanned, scanned_normals, _ = scan(vertices, triangles, stations, scanner, rng)
    surface, surface_normals = sample_surface(vertices, triangles, 800_000, rng)
    windows: list[ShapeSamples] = []
    for attempt in range(20 * WINDOWS_PER_BUILDING):
        is_scanned = len(windows) % 2 == 0
        points, normals = (scanned, scanned_normals) if is_scanned else (surface, surface_normals)
        centre = surface[rng.integers(len(surface))] + rng.uniform(-1.0, 1.0, 3)
        inside = np.flatnonzero(np.abs(points - centre).max(axis=1) < WINDOW_SIDE_M / 2)
        if len(inside) < FEWEST_WINDOW_POINTS:
            continue
        chosen = rng.permutation(inside)[: layout.points]
        around = surface[np.abs(surface - centre).max(axis=1) < WINDOW_SIDE_M / 2]
        around = np.concatenate([around, points[chosen]])
        around = around[rng.integers(len(around), size=layout.near_queries)]
        windows.append(
            _label(
                scene.occupancy,
                (points[chosen] - centre) / WINDOW_SIDE_M,
                normals[chosen],
                is_scanned,
                rng.uniform(-0.5, 0.5, (layout.uniform_queries, 3)),
                (around - centre) / WINDOW_SIDE_M,
                centre,
                WINDOW_SIDE_M,
                "building",
                f"building-{seed:08d}-{len(windows)}",
                seed,
                rng,
            )
        )
        if len(windows) == WINDOWS_PER_BUILDING:
            return windows
        del attempt
    raise ValueError(f"building {seed}: fewer than {WINDOWS_PER_BUILDING} windows with enough points")


def _label(
    occupancy: Occupancy,
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    has_scan_noise: bool,
    uniform: NDArray[np.float64],
    around: NDArray[np.float64],
    location: NDArray[np.float64],
    scale: float,
    category: str,
    name: str,
    seed: int,
    rng: np.random.Generator,
) -> ShapeSamples:
    """Label queries by the scene's exact occupancy, after rounding them to what the store keeps."""
    sigma = np.where(rng.random(len(around)) < 0.5, *NEAR_SIGMAS)
    near = (around + rng.standard_normal(around.shape) * sigma[:, None]).astype(np.float32)
    uniform32 = uniform.astype(np.float32)
    return ShapeSamples(
        points=points.astype(np.float32),
        normals=normals.astype(np.float32),
        has_scan_noise=has_scan_noise,
        uniform_queries=uniform32,
        uniform_occupancy=occupancy(uniform32.astype(np.float64) * scale + location),
        near_queries=near,
        near_occupancy=occupancy(near.astype(np.float64) * scale + location),
        location=location,
        scale=scale,
        category=category,
        split=SplitShares().of(seed),
        name=name,
    )
