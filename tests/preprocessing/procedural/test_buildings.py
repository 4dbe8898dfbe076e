"""Buildings: closed, exactly labeled, furnished, every room reachable."""

import numpy as np
import pytest
import trimesh
from scipy.ndimage import label

from preprocessing.errors import GeometryError
from preprocessing.occupancy_labels import label_mesh
from preprocessing.procedural.buildings import BuildingConfig, building
from preprocessing.procedural.scanner import place_stations
from preprocessing.surface_sampling import sample_surface


@pytest.fixture(scope="module")
def default_building():
    return building(BuildingConfig())


def test_default_has_the_size_of_a_demo(default_building):
    extent = default_building.bounds[1] - default_building.bounds[0]
    assert extent[0] >= 12 and extent[1] >= 10 and extent[2] >= 6
    assert len(default_building.rooms) >= 8 and len(default_building.solids) > 500


def test_union_is_watertight_and_labels_agree(default_building):
    vertices, faces = default_building.mesh()
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    rng = np.random.default_rng(0)
    surface, normals = sample_surface(vertices, faces, 50_000, rng)
    low, high = default_building.bounds
    queries = np.concatenate(
        [rng.uniform(low, high, (100_000, 3)), surface + rng.normal(size=surface.shape) * 0.02]
    )
    differs = (label_mesh(vertices, faces, queries) != default_building.occupancy(queries)).sum()
    # Solids grow by 3 micrometers before the union; queries that close to a face may differ.
    assert differs <= 20, f"{differs} of 150,000 labels differ"
    assert default_building.occupancy(surface - 1e-4 * normals).mean() > 0.999
    assert default_building.occupancy(surface + 1e-4 * normals).mean() < 0.001


@pytest.mark.parametrize("roof", ["flat", "pitched"])
@pytest.mark.parametrize(("size_x", "size_y", "floors"), [(7.0, 6.0, 1), (6.0, 9.0, 2), (15.0, 9.0, 3)])
def test_any_size_closes_and_stays_in_bounds(size_x, size_y, floors, roof):
    config = BuildingConfig(seed=4, size_x=size_x, size_y=size_y, floors=floors, roof=roof, furnishing=0.2)
    scene = building(config)
    low, high = scene.bounds
    assert (low[:2] >= -2.5).all() and high[0] <= size_x + 2.5 and high[1] <= size_y + 2.5
    assert high[2] >= floors * config.storey_height
    vertices, faces = scene.mesh()
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    for room_low, room_high in scene.rooms:
        assert (room_low < room_high).all()


@pytest.mark.parametrize("seed", range(3))
def test_every_room_is_reached_from_outdoors(seed):
    scene = building(BuildingConfig(seed=seed, roof="flat", furnishing=0.0))
    step = 0.15
    low, high = scene.bounds[0] - 3 * step, scene.bounds[1] + 3 * step
    axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    free = ~scene.occupancy(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    # One flood of the free space, through doors, windows and the stairs, reaches every room.
    regions, _ = label(free)
    for room in scene.rooms:
        inside = ((grid > room[0]) & (grid < room[1])).all(axis=-1) & free
        assert (regions[inside] == regions[0, 0, 0]).mean() > 0.9


def test_upper_floor_is_reached_by_the_stairs():
    scene = building(BuildingConfig(seed=1, floors=2, furnishing=0.0, roof="flat"))
    step = 0.1
    low, high = scene.rooms[0][0], np.array([*scene.rooms[0][1][:2], 5.5])
    axes = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    free = ~scene.occupancy(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    regions, _ = label(free)
    below, above = regions[:, :, 15], regions[:, :, 45]
    assert set(np.unique(below[below > 0])) & set(np.unique(above[above > 0]))


def test_same_configuration_same_bytes():
    config = BuildingConfig(seed=3, size_x=8.0, size_y=7.0, floors=1)
    first, second = building(config), building(config)
    assert all(
        a.vertices.tobytes() == b.vertices.tobytes() for a, b in zip(first.solids, second.solids, strict=True)
    )
    assert first.mesh()[1].tobytes() == second.mesh()[1].tobytes()


def test_furnishing_zero_is_empty_and_more_is_fuller(default_building):
    empty = building(BuildingConfig(furnishing=0.0))
    assert len(empty.solids) < 0.5 * len(default_building.solids)


def test_stations_stand_in_free_space(default_building):
    stations = place_stations(default_building, 24, np.random.default_rng(0))
    assert stations.shape == (24, 3)
    assert not default_building.occupancy(stations).any()
    homes = {
        index
        for index, (low, high) in enumerate(default_building.rooms)
        for station in stations
        if ((station > low) & (station < high)).all()
    }
    # Rooms are visited in turn before any is visited twice.
    assert len(homes) == min(len(default_building.rooms), 24 - round(24 * 0.15))


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"size_x": 3.0},
        {"size_x": 6.0, "size_y": 6.0},
        {"floors": 0},
        {"storey_height": 2.0},
        {"roof": "thatched"},
        {"furnishing": 1.5},
        {"smallest_room": 0.5},
    ],
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(GeometryError, match=next(iter(wrong))):
        BuildingConfig(**wrong)
