"""Synthetic rooms keep the contract of Peng et al. 2020, section 4."""

import numpy as np
import pytest
import trimesh

from preprocessing.occupancy_labels import label_mesh
from preprocessing.procedural.solids import bounds_of
from preprocessing.procedural.synthetic_rooms import SLAB, synthetic_room
from preprocessing.surface_sampling import sample_surface


@pytest.mark.parametrize("seed", range(8))
def test_rooms_fill_the_unit_cube_and_stand_on_a_slab(seed):
    room = synthetic_room(seed)
    extent = room.bounds[1] - room.bounds[0]
    assert extent[:2].max() == pytest.approx(1.0, abs=1e-12) and extent[2] <= 1.0
    assert np.allclose(room.bounds.sum(axis=0), 0.0, atol=1e-12)
    assert np.array_equal(room.bounds, bounds_of(room.solids))
    floor = room.solids[0].bounds
    assert SLAB[0] <= floor[1, 2] - floor[0, 2] <= SLAB[1]
    assert 0.6 <= extent[:2].min() <= 1.0


@pytest.mark.parametrize("seed", range(4))
def test_union_mesh_is_closed_and_labels_agree(seed):
    room = synthetic_room(seed)
    vertices, faces = room.mesh()
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    rng = np.random.default_rng(seed)
    surface, normals = sample_surface(vertices, faces, 10_000, rng)
    uniform = rng.uniform(-0.55, 0.55, (20_000, 3))
    near = surface + rng.normal(size=surface.shape) * 0.01
    queries = np.concatenate([uniform, near])
    differs = (label_mesh(vertices, faces, queries) != room.occupancy(queries)).sum()
    assert differs <= 3, f"seed {seed}: {differs} of 30,000 labels differ"
    # 1e-4 below and above the surface, along its outward normal, up to parts thinner than that.
    assert room.occupancy(surface - 1e-4 * normals).mean() > 0.999
    assert room.occupancy(surface + 1e-4 * normals).mean() < 0.001


def test_same_seed_same_bytes_and_other_seeds_differ():
    first, second, other = synthetic_room(5), synthetic_room(5), synthetic_room(6)
    assert all(
        a.vertices.tobytes() == b.vertices.tobytes() for a, b in zip(first.solids, second.solids, strict=True)
    )
    assert first.mesh()[0].tobytes() == second.mesh()[0].tobytes()
    assert first.name != other.name and not np.array_equal(first.bounds, other.bounds)


def test_walls_and_objects_vary():
    rooms = [synthetic_room(seed) for seed in range(30)]
    heights = {round(float(room.bounds[1, 2] - room.bounds[0, 2]), 3) for room in rooms}
    occupied = [
        room.occupancy(np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 3))).mean() for room in rooms
    ]
    assert len(heights) > 25 and min(occupied) > 0.01 and max(occupied) < 0.3
