"""A virtual terrestrial laser scanner: rays on a spherical grid, noise, dropouts and mixed pixels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import GeometryError
from preprocessing.native import ray_threads, ray_tree, tensor
from preprocessing.procedural.solids import Floats, Scene

# A neighboring ray that ends this much farther or nearer (share of the range) makes a mixed pixel.
DISCONTINUITY = 0.05
CLEARANCE = 0.15  # free distance around a station; it shrinks if no place has that much


@dataclass(frozen=True)
class ScannerConfig:
    """How a scanner sees.

    Attributes:
        rays_per_station: about how many rays one station casts, at equal steps of azimuth and elevation.
        elevation_low_deg: lowest ray; the tripod hides what is below.
        elevation_high_deg: highest ray; 90 is the zenith.
        noise_base_m: standard deviation of the range noise at range 0.
        noise_per_meter: growth of that deviation with the range.
        dropout: probability that a return is lost whatever its angle.
        grazing_dropout: probability that a return along the surface is lost as well; it falls linearly to 0
            at `grazing_angle_deg` between the ray and the surface.
        grazing_angle_deg: angle to the surface, in degrees, from which no return is lost to grazing.
        outlier_fraction: share of the returns that become mixed pixels, displaced along their ray.
        max_range: farther surfaces give no return, in the scene's unit.
    """

    rays_per_station: int = 400_000
    elevation_low_deg: float = -65.0
    elevation_high_deg: float = 90.0
    noise_base_m: float = 0.002
    noise_per_meter: float = 0.0005
    dropout: float = 0.02
    grazing_dropout: float = 0.7
    grazing_angle_deg: float = 12.0
    outlier_fraction: float = 0.002
    max_range: float = 60.0

    @property
    def angular_step_deg(self) -> float:
        """Angle between neighboring rays, in azimuth and in elevation."""
        sphere = 360.0 * (self.elevation_high_deg - self.elevation_low_deg)
        return float(np.sqrt(sphere / self.rays_per_station))

    def __post_init__(self) -> None:
        if self.rays_per_station < 100:
            raise GeometryError(f"rays_per_station must be at least 100, not {self.rays_per_station}")
        if not -90.0 <= self.elevation_low_deg < self.elevation_high_deg <= 90.0:
            raise GeometryError("elevation_low_deg must be below elevation_high_deg, both in [-90, 90]")
        for name in ("dropout", "grazing_dropout", "outlier_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise GeometryError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        if self.noise_base_m < 0 or self.noise_per_meter < 0:
            raise GeometryError("noise_base_m and noise_per_meter must not be negative")
        if not 0.0 < self.grazing_angle_deg <= 90.0 or not self.max_range > 0:
            raise GeometryError("grazing_angle_deg must be in (0, 90] and max_range positive")


class Scan(NamedTuple):
    """What `scan` returns.

    Attributes:
        points: (N, 3) float64.
        normals: (N, 3) float64 unit normals of the surface hit, turned towards the station.
        station: (N,) int64 row of the station that saw the point.
    """

    points: Floats
    normals: Floats
    station: NDArray[np.int64]


def ray_grid(config: ScannerConfig, rng: np.random.Generator) -> Floats:
    """(R, C, 3) unit directions, rows of elevation by columns of azimuth, at a random azimuth phase."""
    step = np.deg2rad(config.angular_step_deg)
    low, high = np.deg2rad([config.elevation_low_deg, config.elevation_high_deg])
    elevation = np.arange(low + step / 2, high, step)[:, None]
    columns = max(3, round(2 * np.pi / step))
    azimuth = (np.arange(columns) + rng.random()) * (2 * np.pi / columns)
    return np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (len(elevation), columns)),
        ],
        axis=2,
    )


def scan(
    vertices: Floats,
    faces: NDArray[np.integer],
    stations: Floats,
    config: ScannerConfig,
    rng: np.random.Generator,
) -> Scan:
    """Scan a mesh from several stations.

    Args:
        vertices: (V, 3) float64, world coordinates of any magnitude.
        faces: (F, 3) rows of `vertices`.
        stations: (S, 3) positions of the scanner, in free space.
        config: how it sees.
        rng: the only source of chance.

    Returns:
        points, normals and the station of each; ordered by station, then elevation, then azimuth.

    Raises:
        GeometryError: if Open3D cannot start.

    Rays are cast in float32 about the mesh's center; points are put together in float64.
    """
    vertices = np.asarray(vertices, np.float64)
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    caster = ray_tree([(vertices - center, faces)])
    parts = []
    for index, station in enumerate(np.asarray(stations, np.float64).reshape(-1, 3)):
        directions = ray_grid(config, rng)
        # The float32 origin is what the rays start from, so ranges are measured from it too.
        origin = (station - center).astype(np.float32)
        rays = np.empty((*directions.shape[:2], 6), np.float32)
        rays[..., :3], rays[..., 3:] = origin, directions
        hits = caster.cast_rays(tensor(rays), nthreads=ray_threads())
        ranges = hits["t_hit"].numpy().astype(np.float64)
        normals = hits["primitive_normals"].numpy().astype(np.float64)
        directions = rays[..., 3:].astype(np.float64)
        facing = (normals * directions).sum(axis=2)
        normals *= -np.sign(facing)[..., None]
        kept = _returns(ranges, np.abs(facing), config, rng)
        noisy = _noisy_ranges(ranges, config, rng)
        points = center + origin.astype(np.float64) + noisy[kept][:, None] * directions[kept]
        lengths = np.linalg.norm(normals[kept], axis=1, keepdims=True)
        parts.append((points, normals[kept] / lengths, np.full(len(points), index, np.int64)))
    if not parts:
        return Scan(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, np.int64))
    points, normals, station_of = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Scan(points, normals, station_of)


def _returns(
    ranges: Floats, facing: Floats, config: ScannerConfig, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(R, C) which rays give a return; `facing` is the sine of the angle between ray and surface."""
    angle = np.rad2deg(np.arcsin(np.clip(facing, 0.0, 1.0)))
    grazing = config.grazing_dropout * np.clip(1.0 - angle / config.grazing_angle_deg, 0.0, 1.0)
    survival = (1.0 - config.dropout) * (1.0 - grazing)
    kept: NDArray[np.bool_] = (
        (rng.random(ranges.shape) < survival) & (ranges <= config.max_range) & (facing > 0)
    )
    return kept


def _noisy_ranges(ranges: Floats, config: ScannerConfig, rng: np.random.Generator) -> Floats:
    """(R, C) ranges with noise; some rays take a range between their own and that of the next ray.

    A beam that covers two surfaces returns a range in between; where the next ray ends on the same
    surface, the outlier falls short of it by up to a tenth.
    """
    seen = np.where(np.isfinite(ranges), ranges, 0.0)
    noisy = seen + rng.normal(size=seen.shape) * (config.noise_base_m + config.noise_per_meter * seen)
    is_outlier = rng.random(seen.shape) < config.outlier_fraction
    share = rng.random(seen.shape)
    beside = np.roll(seen, 1, axis=1)
    is_edge = (np.abs(beside - seen) > DISCONTINUITY * seen) & (beside > 0) & (beside <= config.max_range)
    mixed = np.where(is_edge, seen + share * (beside - seen), seen * (1.0 - 0.1 * share))
    return np.maximum(np.where(is_outlier, mixed, noisy), 0.0)


def place_stations(
    scene: Scene, count: int, rng: np.random.Generator, outside_fraction: float = 0.15
) -> Floats:
    """Choose scanner positions in free space.

    Args:
        scene: with rooms, stations visit them in turn, in random order; without, they stand around its
            middle, above the solids.
        count: number of stations S.
        rng: the only source of chance.
        outside_fraction: share of the stations placed around the scene instead of in a room.

    Returns:
        (S, 3) float64. In rooms higher than 2 m they stand 1.2 to 1.8 m above the floor, in smaller ones
        (scenes scaled to a unit cube) at 45 % to 75 % of the room's height.

    Raises:
        GeometryError: if the scene has no free space.
    """
    outside = round(count * outside_fraction) if scene.rooms else 0
    order = [int(room) for _ in range(count) for room in rng.permutation(len(scene.rooms))]
    stations = [
        _free_point(scene, *_standing_box(scene.rooms[room], rng), rng) for room in order[: count - outside]
    ]
    while len(stations) < count:
        if scene.rooms:
            box, ceiling = _outside_box(scene, rng), float(scene.bounds[1, 2])
        else:
            # Without rooms, a station may rise above what is in its way.
            box, ceiling = _standing_box(np.stack([scene.bounds[0], scene.bounds[1] + CLEARANCE]), rng)
        stations.append(_free_point(scene, box, ceiling, rng))
    return np.array(stations, np.float64).reshape(-1, 3)


def _standing_box(room: Floats, rng: np.random.Generator) -> tuple[Floats, float]:
    """(2, 3) where a station may stand in a room, away from its walls at one height; and the ceiling's."""
    low, high = room
    height = float(high[2] - low[2])
    rise = rng.uniform(1.2, min(1.8, height - 0.1)) if height > 2.0 else height * rng.uniform(0.45, 0.75)
    margin = np.minimum(0.4, 0.2 * (high - low)[:2])
    box = np.array([[*(low[:2] + margin), low[2] + rise], [*(high[:2] - margin), low[2] + rise]])
    return box, float(high[2])


def _outside_box(scene: Scene, rng: np.random.Generator) -> Floats:
    """(2, 3) a strip beside one of the four sides, 0.15 to 0.4 of the scene's size away, at eye height."""
    low, high = scene.bounds
    size = float((high - low)[:2].max())
    axis, is_far = int(rng.integers(2)), bool(rng.integers(2))
    away = size * rng.uniform(0.15, 0.4)
    strip = scene.bounds.copy()
    strip[:, axis] = high[axis] + away if is_far else low[axis] - away
    floor = min((float(room[0, 2]) for room in scene.rooms), default=float(low[2]))
    strip[:, 2] = floor + rng.uniform(1.2, 1.8)
    return strip


def _free_point(scene: Scene, box: Floats, ceiling: float, rng: np.random.Generator) -> Floats:
    directions = np.concatenate([np.eye(3), -np.eye(3)])
    clearance = min(CLEARANCE, 0.05 * float(np.ptp(scene.bounds, axis=0).max()))
    for attempt in range(200):
        # Less and less clearance is asked for, and any height up to the ceiling in the end.
        reach = clearance * 0.98**attempt
        point = rng.uniform(box[0], box[1])
        if attempt >= 100:
            point[2] = rng.uniform(box[0, 2], ceiling)
        around = point + directions * reach
        if not scene.occupancy(np.concatenate([point[None], around])).any():
            free: Floats = point
            return free
    raise GeometryError(f"{scene.name}: no free place for a scanner between {box[0]} and {box[1]}")
