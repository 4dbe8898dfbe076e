"""Procedural scenes: paper-style rooms, and windows of furnished and scanned buildings, exactly labeled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foundation.errors import SettingError
from foundation.settings import check_at_least
from preprocessing.dataset import DatasetLayout, ShapeSamples
from preprocessing.errors import DatasetError
from preprocessing.mesh_samples import PADDED_SIDE, ShapeLabels, near_surface
from preprocessing.occupancy_labels import signed_distances
from preprocessing.procedural.buildings import BuildingConfig, building
from preprocessing.procedural.scanner import ScannerConfig, place_stations, scan
from preprocessing.procedural.solids import Scene
from preprocessing.procedural.synthetic_rooms import synthetic_room
from preprocessing.sources.splits import split_of_seed
from preprocessing.sources.unit import Collection, Unit
from preprocessing.surface_sampling import sample_surface

CATEGORIES = ("room", "building")
WINDOWS_PER_BUILDING = 8
WINDOW_SIDE_M = 6.0
FEWEST_WINDOW_POINTS = 8_000


@dataclass(frozen=True)
class RoomsConfig:
    """Which procedural scenes to prepare.

    Attributes:
        rooms: paper-style synthetic rooms; rounded up to whole shards of 8.
        building_windows: 6 m windows of furnished buildings, 8 of each building; rounded up likewise.
        seed: of the first scene; the same seed gives the same bytes whatever the number of workers.
    """

    rooms: int = 640
    building_windows: int = 640
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(0, rooms=self.rooms, building_windows=self.building_windows, seed=self.seed)
        if self.rooms + self.building_windows < 1:
            raise SettingError("ask for at least one room or building window")


@dataclass(frozen=True)
class RoomUnit:
    """One paper-style synthetic room."""

    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The seed in words."""
        return (f"room-{self.seed:08d}",)

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Uniformly sampled, without noise (the sampler adds it)."""
        scene = synthetic_room(self.seed)
        rng = np.random.default_rng([self.seed, 1])
        vertices, faces = scene.mesh()
        cloud = sample_surface(vertices, faces, layout.points, rng)
        around, _ = sample_surface(vertices, faces, layout.near_queries, rng)
        uniform = rng.uniform(-PADDED_SIDE / 2, PADDED_SIDE / 2, (layout.uniform_queries, 3))
        labels = ShapeLabels(self.names[0], "room", split_of_seed(self.seed), self.seed)
        return [_label(scene, labels, cloud, (uniform, around), np.zeros(3), 1.0, rng)]


@dataclass(frozen=True)
class BuildingUnit:
    """The windows of one furnished building."""

    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The seed and the window's number."""
        return tuple(f"building-{self.seed:08d}-{window}" for window in range(WINDOWS_PER_BUILDING))

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Cubic windows of one furnished building, alternately scanned from stations and sampled uniformly."""
        seed = self.seed
        rng = np.random.default_rng([seed, 2])
        config = BuildingConfig(
            seed=seed,
            size_x=float(rng.uniform(7, 14)),
            size_y=float(rng.uniform(6, 12)),
            floors=int(rng.integers(1, 3)),
        )
        scene = building(config)
        vertices, faces = scene.mesh()
        stations = place_stations(scene, int(rng.integers(6, 14)), rng)
        scanner = ScannerConfig(
            rays_per_station=int(rng.integers(150_000, 350_000)),
            noise_base_m=float(rng.uniform(0.001, 0.008)),
            noise_per_meter=float(rng.uniform(0.0, 0.001)),
            outlier_fraction=float(rng.uniform(0.0, 0.004)),
        )
        scanned, scanned_normals, _ = scan(vertices, faces, stations, scanner, rng)
        surface, surface_normals = sample_surface(vertices, faces, 800_000, rng)
        windows: list[ShapeSamples] = []
        for _ in range(20 * WINDOWS_PER_BUILDING):
            is_scanned = len(windows) % 2 == 0
            points, normals = (scanned, scanned_normals) if is_scanned else (surface, surface_normals)
            center = surface[rng.integers(len(surface))] + rng.uniform(-1.0, 1.0, 3)
            inside = np.flatnonzero(np.abs(points - center).max(axis=1) < WINDOW_SIDE_M / 2)
            if len(inside) < FEWEST_WINDOW_POINTS:
                continue
            chosen = rng.permutation(inside)[: layout.points]
            around = surface[np.abs(surface - center).max(axis=1) < WINDOW_SIDE_M / 2]
            around = np.concatenate([around, points[chosen]])
            around = around[rng.integers(len(around), size=layout.near_queries)]
            labels = ShapeLabels(self.names[len(windows)], "building", split_of_seed(seed), seed)
            cloud = (points[chosen] - center) / WINDOW_SIDE_M, normals[chosen]
            asked = rng.uniform(-0.5, 0.5, (layout.uniform_queries, 3)), (around - center) / WINDOW_SIDE_M
            window = _label(scene, labels, cloud, asked, center, WINDOW_SIDE_M, rng)
            windows.append(replace(window, has_scan_noise=is_scanned, is_window=True))
            if len(windows) == WINDOWS_PER_BUILDING:
                return windows
        raise DatasetError(f"building {seed}: fewer than {WINDOWS_PER_BUILDING} windows with enough points")


def rooms_collection(config: RoomsConfig) -> Collection:
    """Rooms, then windows of buildings, in whole shards."""
    per_shard = WINDOWS_PER_BUILDING
    rooms = -(-config.rooms // per_shard) * per_shard
    buildings = -(-config.building_windows // per_shard)
    units: list[Unit] = [RoomUnit(config.seed + number) for number in range(rooms)]
    units += [BuildingUnit(config.seed + number) for number in range(buildings)]
    shapes = rooms + buildings * per_shard
    layout = DatasetLayout(shapes, CATEGORIES, shapes_per_shard=per_shard, has_distances=True)
    provenance = {"source": "rooms", "rooms": config.rooms, "building_windows": config.building_windows}
    return Collection(tuple(units), layout, provenance | {"seed": config.seed})


def _label(
    scene: Scene,
    labels: ShapeLabels,
    cloud: tuple[NDArray[np.float64], NDArray[np.float64]],
    asked: tuple[NDArray[np.float64], NDArray[np.float64]],
    location: NDArray[np.float64],
    scale: float,
    rng: np.random.Generator,
) -> ShapeSamples:
    """Label queries by the scene's exact solids and surface, after rounding them to what the store keeps.

    Args:
        cloud: points and normals; asked: uniform queries, and surface points to ask around.
    """
    uniform, near = asked[0].astype(np.float32), near_surface(asked[1], rng).astype(np.float32)
    queries = np.concatenate([uniform, near]).astype(np.float64) * scale + location
    occupied = scene.occupancy(queries)
    distances = signed_distances(*scene.mesh(), queries, occupied) / np.float32(scale)
    return ShapeSamples(
        points=cloud[0].astype(np.float32),
        normals=cloud[1].astype(np.float32),
        uniform_queries=uniform,
        uniform_occupancy=occupied[: len(uniform)],
        near_queries=near,
        near_occupancy=occupied[len(uniform) :],
        uniform_distances=distances[: len(uniform)],
        near_distances=distances[len(uniform) :],
        location=location,
        scale=scale,
        category=labels.category,
        split=labels.split,
        name=labels.name,
        provenance={"seed": labels.seed},
    )
