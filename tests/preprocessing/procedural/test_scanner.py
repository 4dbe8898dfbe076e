"""Scans against closed forms in an empty box, and lines of sight against a caster of another library."""

import numpy as np
import pytest
import trimesh

from preprocessing.errors import GeometryError
from preprocessing.procedural.scanner import ScannerConfig, place_stations, ray_grid, scan
from preprocessing.procedural.solids import Scene, bounds_of, box, union_mesh
from preprocessing.procedural.synthetic_rooms import synthetic_room

# The inside of a cube of side 6 with walls 0.2 thick, seen from within.
ROOM = tuple(
    box(np.where(np.arange(3) == axis, low, -3.2), np.where(np.arange(3) == axis, low + 0.2, 3.2))
    for axis in range(3)
    for low in (-3.2, 3.0)
)
CLEAN = ScannerConfig(
    rays_per_station=20_000,
    noise_base_m=0.0,
    noise_per_meter=0.0,
    dropout=0.0,
    grazing_dropout=0.0,
    outlier_fraction=0.0,
)
MESH = union_mesh(ROOM)


def changed(**values):
    return ScannerConfig(**{**CLEAN.__dict__, **values})


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_without_noise_every_ray_ends_on_the_wall(offset):
    station = np.array([[0.5, -0.7, 0.3]])
    points, normals, owner = scan(
        MESH[0] + offset, MESH[1], station + offset, CLEAN, np.random.default_rng(0)
    )
    local = points - offset
    # float32 rays about the center: 1e-6 of meters, plus the growth of the solids before their union.
    assert np.abs(np.abs(local).max(axis=1) - 3.0).max() < 1e-5
    assert len(points) == ray_grid(CLEAN, np.random.default_rng(0)).reshape(-1, 3).shape[0]
    assert (np.einsum("ni,ni->n", normals, station[0] - local) > 0).all()
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-6)
    assert (owner == 0).all() and points.dtype == np.float64


def test_noise_stays_on_the_ray_and_grows_with_the_range():
    config = changed(noise_base_m=0.01, noise_per_meter=0.02)
    station = np.zeros((1, 3))
    points, _, _ = scan(*MESH, station, config, np.random.default_rng(1))
    directions = ray_grid(config, np.random.default_rng(1)).reshape(-1, 3)
    ranges = np.linalg.norm(points, axis=1)
    assert np.abs(np.einsum("ni,ni->n", points / ranges[:, None], directions) - 1).max() < 1e-6
    truth = 3.0 / np.abs(directions).max(axis=1)
    error = (ranges - truth) / (0.01 + 0.02 * truth)
    # 20,000 unit normal draws: mean within 5 / sqrt(20,000), deviation within 2 %, none beyond 6.
    assert abs(error.mean()) < 0.035 and error.std() == pytest.approx(1.0, abs=0.02)
    assert np.abs(error).max() < 6


def test_density_falls_with_the_square_of_the_range():
    points, _, _ = scan(*MESH, np.array([[2.0, 0.0, 0.0]]), CLEAN, np.random.default_rng(2))
    near = (points[:, 0] > 2.99) & (np.abs(points[:, 1:]) < 0.1).all(axis=1)
    far = (points[:, 0] < -2.99) & (np.abs(points[:, 1:]) < 0.5).all(axis=1)
    # Distances 1 and 5, and patches of 0.2 and 1.0: the same solid angle, so the same count.
    assert near.sum() == pytest.approx(far.sum(), rel=0.2) and near.sum() > 20


def test_dropout_takes_its_share():
    full, _, _ = scan(*MESH, np.zeros((1, 3)), CLEAN, np.random.default_rng(3))
    kept, _, _ = scan(*MESH, np.zeros((1, 3)), changed(dropout=0.3), np.random.default_rng(3))
    assert len(kept) / len(full) == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / len(full)))


def test_grazing_dropout_takes_only_what_grazes():
    # From 5 cm beside a wall most of its returns graze it.
    station = np.array([[2.95, 0.0, 0.0]])
    config = changed(grazing_dropout=1.0, grazing_angle_deg=15.0)
    full, normals, _ = scan(*MESH, station, CLEAN, np.random.default_rng(4))
    kept, kept_normals, _ = scan(*MESH, station, config, np.random.default_rng(4))

    def angle(points, outward):
        ray = (points - station) / np.linalg.norm(points - station, axis=1, keepdims=True)
        return np.rad2deg(np.arcsin(np.abs(np.einsum("ni,ni->n", ray, outward)).clip(0, 1)))

    before, after = angle(full, normals), angle(kept, kept_normals)
    # Above the limit nothing is lost; below, survival is angle / limit.
    assert (before >= 15.01).sum() == (after >= 15.01).sum()
    expected = (before[before < 15] / 15).sum()
    assert (after < 15).sum() == pytest.approx(expected, abs=5 * np.sqrt(expected))


def test_outliers_are_the_share_asked_for_and_fall_short_of_a_plain_wall():
    points, _, _ = scan(*MESH, np.zeros((1, 3)), changed(outlier_fraction=0.1), np.random.default_rng(5))
    depth = 3.0 - np.abs(points).max(axis=1)
    assert (depth > 1e-4).mean() == pytest.approx(0.1, abs=0.01)
    assert depth.max() <= 0.3 + 1e-6 and depth.min() > -1e-4


def test_range_limit_holds():
    points, _, _ = scan(*MESH, np.zeros((1, 3)), changed(max_range=4.0), np.random.default_rng(6))
    assert np.linalg.norm(points, axis=1).max() <= 4.0 + 1e-5


def test_nothing_stands_between_station_and_point():
    room = synthetic_room(2)
    vertices, faces = room.mesh()
    stations = place_stations(room, 3, np.random.default_rng(7))
    points, normals, owner = scan(
        vertices, faces, stations, changed(rays_per_station=3000), np.random.default_rng(7)
    )
    assert set(owner) == {0, 1, 2}
    # Exact occupancy along the whole line of sight, by half-spaces: no ray caster involved.
    for share in np.linspace(0.0, 1.0, 60)[:-1]:
        between = stations[owner] + share * (points - stations[owner])
        clear = np.linalg.norm(points - between, axis=1) > 1e-3
        # A ray that grazes an edge within the growth of the union may enter it by a hair.
        assert room.occupancy(between[clear]).mean() < 1e-3
    # Points lie on the surface, free before and solid behind.
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    _, distance, _ = trimesh.proximity.closest_point(mesh, points[:300])
    assert distance.max() < 1e-5
    assert room.occupancy(points - 1e-4 * normals).mean() > 0.998
    assert room.occupancy(points + 1e-4 * normals).mean() < 0.002


def test_same_seed_same_bytes():
    first = scan(*MESH, np.zeros((2, 3)), ScannerConfig(5000), np.random.default_rng(8))
    second = scan(*MESH, np.zeros((2, 3)), ScannerConfig(5000), np.random.default_rng(8))
    assert first.points.tobytes() == second.points.tobytes()
    assert first.station.tobytes() == second.station.tobytes()


def test_no_station_gives_no_points():
    points, normals, owner = scan(*MESH, np.empty((0, 3)), CLEAN, np.random.default_rng(0))
    assert points.shape == normals.shape == (0, 3) and owner.shape == (0,)


def test_a_solid_scene_has_no_place_for_a_station():
    solids = (box((0, 0, 0), (1, 1, 1)),)
    scene = Scene(solids, "full", bounds_of(solids), (bounds_of(solids),))
    with pytest.raises(GeometryError, match="full: no free place"):
        place_stations(scene, 2, np.random.default_rng(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rays_per_station": 10},
        {"dropout": 1.5},
        {"outlier_fraction": -0.1},
        {"noise_base_m": -1.0},
        {"elevation_low_deg": 95.0},
        {"max_range": 0.0},
    ],
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(GeometryError, match=next(iter(wrong))):
        ScannerConfig(**wrong)
