"""The store of training data: what is written comes back through plain zarr, and damage shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import zarr

from preprocessing.dataset import (
    BLOCK,
    DatasetLayout,
    RejectedShape,
    ShapeSamples,
    check_shard,
    create_dataset,
    finish_dataset,
    finished_shards,
    read_layout,
    read_record,
    write_shard,
)
from preprocessing.errors import DatasetError
from preprocessing.training_crops import CropConfig, CropSource

LAYOUT = DatasetLayout(
    shapes=5,
    categories=("ball",),
    points=2 * BLOCK,
    uniform_queries=BLOCK,
    near_queries=2 * BLOCK,
    shapes_per_shard=2,
)
RADIUS = 0.3


def ball(number: int) -> ShapeSamples:
    """A ball of radius 0.3 in the unit cube, exactly labelled."""
    rng = np.random.default_rng(number)
    directions = rng.standard_normal((LAYOUT.points - 7, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    uniform = rng.uniform(-0.5, 0.5, (LAYOUT.uniform_queries, 3)).astype(np.float32)
    near = (directions[rng.integers(len(directions), size=LAYOUT.near_queries)] * RADIUS).astype(np.float32)
    near += rng.normal(0, 0.02, near.shape).astype(np.float32)
    return ShapeSamples(
        points=(directions * RADIUS).astype(np.float32),
        normals=directions.astype(np.float32),
        has_scan_noise=True,
        uniform_queries=uniform,
        uniform_occupancy=np.linalg.norm(uniform, axis=1) < RADIUS,
        near_queries=near,
        near_occupancy=np.linalg.norm(near, axis=1) < RADIUS,
        location=np.array([1.0, 2.0, number]),
        scale=4.0,
        category="ball",
        split="train",
        name=f"ball-{number}",
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "balls.zarr"
    create_dataset(path, LAYOUT, {"source": "test"})
    write_shard(path, 0, [ball(0), ball(1)])
    write_shard(path, 1, [ball(2), RejectedShape(3, "ball-3", "has no volume")])
    write_shard(path, 2, [ball(4)])
    finish_dataset(path)
    return path


def test_plain_zarr_reads_what_was_written(store: Path) -> None:
    group = zarr.open_group(store, mode="r")
    expected = ball(2)
    count = int(group["point_count"][2])
    assert count == len(expected.points)
    np.testing.assert_array_equal(group["points"][2][:count], expected.points)
    np.testing.assert_allclose(group["normals"][2][:count] / 127, expected.normals, atol=0.5 / 127)
    np.testing.assert_array_equal(
        np.unpackbits(group["near_occupancy"][2]).astype(bool), expected.near_occupancy
    )
    np.testing.assert_array_equal(group["valid"][:], [True, True, True, False, True])
    np.testing.assert_array_equal(group["location"][2], expected.location)


def test_a_block_of_2048_points_is_one_inner_chunk(store: Path) -> None:
    group = zarr.open_group(store, mode="r")
    for name in ("points", "uniform_queries", "near_queries"):
        assert group[name].chunks == (1, BLOCK, 3)
        assert group[name].shards == (2, group[name].shape[1], 3)


def test_records_tell_what_is_finished_and_what_was_rejected(store: Path) -> None:
    assert finished_shards(store, LAYOUT) == [0, 1, 2]
    assert read_record(store, 1).rejected == (RejectedShape(3, "ball-3", "has no volume"),)
    assert read_layout(store) == (LAYOUT, {"source": "test"})


def test_a_flipped_byte_is_found(store: Path) -> None:
    assert check_shard(store, 0) == []
    file = store / "points" / "c" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(bytes(data))
    assert check_shard(store, 0) == ["points"]


def test_writing_a_shard_again_gives_the_same_bytes(store: Path) -> None:
    before = read_record(store, 0).checksums
    assert write_shard(store, 0, [ball(0), ball(1)]).checksums == before


def test_other_settings_or_other_things_are_refused(store: Path, tmp_path: Path) -> None:
    create_dataset(store, LAYOUT, {"source": "test"})
    with pytest.raises(DatasetError, match="other settings"):
        create_dataset(store, dataclasses.replace(LAYOUT, shapes=6), {"source": "test"})
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("mine")
    with pytest.raises(DatasetError, match="not a Tessera dataset"):
        create_dataset(tmp_path / "x", LAYOUT, {})
    with pytest.raises(DatasetError, match="not a Tessera dataset"):
        read_layout(tmp_path / "nowhere")


def test_layouts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2048"):
        DatasetLayout(shapes=1, categories=("a",), points=1000)
    with pytest.raises(ValueError, match="at least one shape"):
        DatasetLayout(shapes=0, categories=("a",))


def test_a_training_batch_depends_on_seed_step_and_rank_alone(store: Path) -> None:
    first, again = (CropSource(store, "train", CropConfig(), seed=3) for _ in range(2))
    again.batch(0, 2)
    for step, rank in ((5, 0), (5, 1), (6, 0)):
        one, two = first.batch(step, 2, rank), again.batch(step, 2, rank)
        np.testing.assert_array_equal(one.points, two.points)
        np.testing.assert_array_equal(one.occupancy, two.occupancy)
    assert not np.array_equal(first.batch(5, 2, 0).points[:50], first.batch(5, 2, 1).points[:50])


def test_points_queries_and_labels_of_a_crop_belong_together(store: Path) -> None:
    """Whatever the turn and scale, occupied queries lie inside the sphere that the crop's points lie on."""
    config = CropConfig(noise=0.0, outliers=0.0)
    source = CropSource(store, "train", config, seed=0)
    checked = 0
    for step in range(12):
        batch = source.batch(step, 1)
        assert ((batch.points >= 0) & (batch.points < batch.grid_shape[0])).all()
        if len(batch.points) < 200 or not len(batch.queries):
            continue
        points = batch.points.astype(np.float64)
        solution, *_ = np.linalg.lstsq(
            np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None
        )
        centre = solution[:3]
        radius = np.sqrt(solution[3] + centre @ centre)
        distance = np.linalg.norm(batch.queries - centre, axis=1)
        clear = np.abs(distance - radius) > 0.6  # the sampler shakes scanned points by up to 0.15 voxel
        assert ((distance < radius) == (batch.occupancy > 0.5))[clear].mean() > 0.999
        checked += 1
    assert checked >= 4


def test_an_empty_split_says_what_to_do(store: Path) -> None:
    with pytest.raises(DatasetError, match="no shapes in split 'val'"):
        CropSource(store, "val", CropConfig(), seed=0)
