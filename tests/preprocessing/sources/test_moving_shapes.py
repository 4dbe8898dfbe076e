"""Sequences: procedural bodies, recorded meshes of fixed topology, and the files of Occupancy Flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from preprocessing.dataset import BLOCK, DatasetLayout
from preprocessing.errors import DatasetError, MeshError
from preprocessing.sources import BodiesConfig, bodies_collection, humans_collection
from preprocessing.sources.moving_shapes import BodyUnit
from tests.data_files import shared_data

FRAMES = 5
SMALL = DatasetLayout(
    1, ("articulated", "bending", "twisting", "deforming", "ball"), BLOCK, BLOCK, BLOCK, frames=FRAMES
)


def moving_ball(frame: int) -> trimesh.Trimesh:
    """A ball of radius 0.5 that moves by 0.2 a frame along x and grows by 5% a frame."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5 * 1.05**frame)
    mesh.apply_translation([0.2 * frame, 1.0, -2.0])
    return mesh


def check_ball(points: NDArray[np.float64], frame: int) -> NDArray[np.float64]:
    """World points on that ball's mesh (0.6% inside the sphere at most); their directions from its center."""
    local = points - [0.2 * frame, 1.0, -2.0]
    radius = np.linalg.norm(local, axis=1)
    assert radius.min() > 0.5 * 1.05**frame * 0.99
    assert radius.max() < 0.5 * 1.05**frame * 1.0001
    return np.asarray(local / radius[:, None])


@pytest.mark.parametrize("seed", range(4))
def test_bodies_are_labeled_exactly_and_their_points_correspond(seed: int) -> None:
    (samples,) = BodyUnit(seed).make(SMALL)
    samples.row(SMALL)
    assert samples.points.shape == (FRAMES, BLOCK, 3)
    assert np.abs(samples.points).max() <= 0.5 + 1e-6
    occupied = samples.near_occupancy.mean(axis=1)
    assert ((occupied > 0.2) & (occupied < 0.8)).all()
    steps = np.linalg.norm(np.diff(samples.points, axis=0), axis=2)
    assert steps.max() < 0.5  # nothing jumps
    assert np.linalg.norm(samples.points[-1] - samples.points[0], axis=1).mean() > 0.02
    again = BodyUnit(seed).make(SMALL)[0]
    assert again.points.tobytes() == samples.points.tobytes()
    assert again.near_occupancy.tobytes() == samples.near_occupancy.tobytes()


def test_bodies_take_turns_in_kind() -> None:
    collection = bodies_collection(BodiesConfig(sequences=6, frames=3, seed=10))
    kinds = [unit.names[0].split("-")[0] for unit in collection.units]
    assert kinds == ["twisting", "deforming", "articulated", "bending", "twisting", "deforming"]
    assert collection.layout.frames == 3


@pytest.mark.parametrize("kind", ["meshes", "npz"])
def test_recorded_meshes_keep_their_motion_in_world_units(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "balls" / "rolling"
    folder.mkdir(parents=True)
    meshes = [moving_ball(frame) for frame in range(FRAMES + 2)]
    if kind == "meshes":
        for frame, mesh in enumerate(meshes):
            mesh.export(folder / f"{frame:05d}.obj", digits=10)
    else:
        np.savez(
            folder / "rolling.npz",
            vertices=np.stack([mesh.vertices for mesh in meshes]),
            faces=meshes[0].faces,
        )
    collection = humans_collection(tmp_path, FRAMES)
    assert len(collection.units) == 1  # two frames are left over
    (samples,) = collection.units[0].make(collection.layout)
    samples.row(collection.layout)
    first = None
    for frame in range(FRAMES):
        world = samples.points[frame].astype(np.float64) * samples.scale + samples.location
        direction = check_ball(world, frame)
        first = direction if first is None else first
        np.testing.assert_allclose(direction, first, atol=1e-5)  # the same material points
        assert ((samples.normals[frame] * direction).sum(axis=1) > 0.98).all()
        for queries, occupied in (
            (samples.uniform_queries, samples.uniform_occupancy),
            (samples.near_queries, samples.near_occupancy),
        ):
            asked = queries[frame].astype(np.float64) * samples.scale + samples.location
            distance = np.linalg.norm(asked - [0.2 * frame, 1.0, -2.0], axis=1) / (0.5 * 1.05**frame)
            clear = (distance < 0.985) | (distance > 1.005)
            np.testing.assert_array_equal(occupied[frame][clear], distance[clear] < 1)
    assert samples.provenance["method"] == "exact"
    np.testing.assert_allclose(samples.times, np.linspace(0, 1, FRAMES))


def test_an_open_recording_is_closed_frame_by_frame(tmp_path: Path) -> None:
    meshes = [moving_ball(frame) for frame in range(3)]
    faces = meshes[0].faces[3:]
    np.savez(tmp_path / "open.npz", vertices=np.stack([mesh.vertices for mesh in meshes]), faces=faces)
    collection = humans_collection(tmp_path, 3)
    (samples,) = collection.units[0].make(collection.layout)
    assert samples.provenance["method"] == "visibility"
    for frame in range(3):
        asked = samples.near_queries[frame].astype(np.float64) * samples.scale + samples.location
        distance = np.linalg.norm(asked - [0.2 * frame, 1.0, -2.0], axis=1) / (0.5 * 1.05**frame)
        clear = np.abs(distance - 1) > 0.03
        # the hole's lid cuts a cap of less than 1% of the near queries off
        assert (samples.near_occupancy[frame][clear] == (distance[clear] < 1)).mean() > 0.99


def test_another_topology_or_too_few_frames_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    moving_ball(0).export(folder / "0.obj")
    moving_ball(1).export(folder / "1.obj")
    trimesh.creation.icosphere(subdivisions=1).export(folder / "2.obj")
    (tmp_path / "empty").mkdir()
    collection = humans_collection(tmp_path, 3)
    with pytest.raises(MeshError, match=r"2\.obj: has another topology"):
        collection.units[0].make(collection.layout)
    short = humans_collection(tmp_path, 17)
    with pytest.raises(MeshError, match=r"another topology|fewer than 17"):
        short.units[0].make(short.layout)
    with pytest.raises(DatasetError, match="holds no sequence"):
        humans_collection(tmp_path / "empty", 17)


def test_the_files_of_occupancy_flow_move_to_the_first_frames_scale(tmp_path: Path) -> None:
    folder = tmp_path / "50002_hips"
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((2500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for name in ("pcl_seq", "points_seq"):
        (folder / name).mkdir(parents=True)
    for frame in range(6):
        center, scale = np.array([0.2 * frame, 1.0, -2.0]), 1.2 + 0.1 * frame
        radius = 0.5 * 1.05**frame
        facts = {"loc": center.astype(np.float32), "scale": np.float32(scale)}
        np.savez(
            folder / "pcl_seq" / f"{frame:08d}.npz",
            points=(radius * directions / scale).astype(np.float32),
            **facts,
        )
        queries = rng.uniform(-0.55, 0.55, (3000, 3)).astype(np.float32)
        occupied = np.linalg.norm(queries * scale, axis=1) < radius
        np.savez(
            folder / "points_seq" / f"{frame:08d}.npz",
            points=queries,
            occupancies=np.packbits(occupied),
            **facts,
        )
    collection = humans_collection(tmp_path, 3)
    assert [unit.names[0] for unit in collection.units] == ["50002_hips/000000", "50002_hips/000003"]
    (samples,) = collection.units[1].make(collection.layout)
    samples.row(collection.layout)
    np.testing.assert_allclose(samples.location, [0.6, 1.0, -2.0], atol=1e-6)
    assert samples.scale == pytest.approx(1.5)
    for number, frame in enumerate(range(3, 6)):
        world = samples.points[number].astype(np.float64) * samples.scale + samples.location
        np.testing.assert_allclose(check_ball(world, frame), directions, atol=1e-5)
        asked = samples.uniform_queries[number].astype(np.float64) * samples.scale + samples.location
        distance = np.linalg.norm(asked - [0.2 * frame, 1.0, -2.0], axis=1) / (0.5 * 1.05**frame)
        clear = np.abs(distance - 1) > 1e-4
        np.testing.assert_array_equal(samples.uniform_occupancy[number][clear], distance[clear] < 1)


def test_a_real_walk_is_labeled_as_summed_solid_angles_say() -> None:
    from tests.references.winding_number import winding_numbers

    folder = shared_data("sequences/seq_cesiumman_walk")
    collection = humans_collection(folder, 17)
    units = [unit for unit in collection.units if unit.names[0].startswith("cesiumman_walk_48f")]
    assert len(units) == 2  # 48 frames; a few single frames lie beside them as meshes
    layout = DatasetLayout(2, collection.layout.categories, BLOCK, BLOCK, BLOCK, frames=17)
    (samples,) = units[0].make(layout)
    assert samples.provenance["method"] == "exact"
    stored = np.load(next(folder.glob("*.npz")))
    for frame in (0, 9):
        vertices = (stored["vertices"][frame].astype(np.float64) - samples.location) / samples.scale
        queries = samples.near_queries[frame].astype(np.float64)
        winding = winding_numbers(vertices, stored["faces"].astype(np.int64), queries)
        agree = samples.near_occupancy[frame] == (np.abs(winding) > 0.5)
        assert agree.mean() > 0.99
