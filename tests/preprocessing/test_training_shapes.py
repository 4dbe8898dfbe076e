"""Batches of shapes and sequences against the store as zarr reads it, and against balls, whose inside is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocessing.dataset import (
    BLOCK,
    DatasetLayout,
    RejectedShape,
    ShapeRow,
    ShapeSamples,
    Views,
    create_dataset,
    finish_dataset,
    write_shard,
)
from preprocessing.errors import DatasetError
from preprocessing.training_shapes import (
    SequenceConfig,
    SequenceSource,
    ShapeConfig,
    ShapeSource,
    draw_rows,
)

SPLIT_OF = ("train", "train", "train", "val", "train")  # of balls 0 to 4; the last is rejected
SIDE, PIXELS, FRAMES = 32, 20, 5
BALLS = DatasetLayout(
    shapes=len(SPLIT_OF),
    categories=("ball",),
    points=3 * BLOCK,
    uniform_queries=2 * BLOCK,
    near_queries=BLOCK,
    shapes_per_shard=2,
    voxel_side=SIDE,
    views=3,
    view_size=PIXELS,
)
MOVING = replace(BALLS, frames=FRAMES, voxel_side=0, views=0, view_size=0)


def radius_of(ball: int) -> float:
    return 0.25 + 0.04 * ball


def centre_of(ball: int, time: float) -> NDArray[np.float64]:
    """Balls of a sequence move along x, each at its own speed."""
    return np.array([0.05 * (ball + 1) * time, 0, 0])


def make_ball(ball: int, layout: DatasetLayout, has_scan_noise: bool = False) -> ShapeSamples:
    rng = np.random.default_rng(ball)
    times = np.linspace(0, 1, layout.frames) if layout.frames else np.zeros(1)
    centres = np.stack([centre_of(ball, time) for time in times])[:, None]

    def directions(count: int) -> NDArray[np.float64]:
        raw = rng.standard_normal((count, 3))
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    normals = np.broadcast_to(directions(layout.points - 100), (len(times), layout.points - 100, 3))
    points = centres + radius_of(ball) * normals
    uniform = rng.uniform(-0.55, 0.55, (len(times), layout.uniform_queries, 3)).astype(np.float32)
    near = centres + radius_of(ball) * directions(layout.near_queries)
    near = (near + rng.normal(0, 0.02, near.shape)).astype(np.float32)

    def inside(queries: NDArray[np.float32]) -> NDArray[np.bool_]:
        return np.linalg.norm(queries - centres, axis=-1) < radius_of(ball)

    def stored(values: NDArray[Any]) -> NDArray[Any]:
        return values if layout.frames else values[0]

    cells = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    grid = np.stack(np.meshgrid(cells, cells, cells, indexing="ij"), axis=-1)
    pictures = rng.integers(0, 256, (3, PIXELS, PIXELS, 3)).astype(np.uint8)
    return ShapeSamples(
        points=stored(points).astype(np.float32),
        normals=stored(normals).astype(np.float32),
        uniform_queries=stored(uniform),
        uniform_occupancy=stored(inside(uniform)),
        near_queries=stored(near),
        near_occupancy=stored(inside(near)),
        location=np.zeros(3),
        scale=1.0,
        category="ball",
        split=SPLIT_OF[ball],
        name=f"ball-{ball}",
        has_scan_noise=has_scan_noise,
        times=times.astype(np.float32) if layout.frames else None,
        voxels=np.linalg.norm(grid, axis=-1) < radius_of(ball) if layout.voxel_side else None,
        views=Views(
            pictures, np.ones((3, PIXELS, PIXELS), np.float32), np.zeros((3, 3, 4)), np.zeros((3, 3, 3))
        )
        if layout.views
        else None,
    )


def write_balls(path: Path, layout: DatasetLayout, has_scan_noise: bool = False) -> Path:
    """A store of balls, four of them usable and the last rejected."""
    create_dataset(path, layout, {})
    for shard in range(layout.shards):
        shapes: list[ShapeRow | RejectedShape] = []
        for ball in layout.shard_shapes(shard):
            is_last = ball == layout.shapes - 1
            shapes.append(
                RejectedShape(ball, "x", "no")
                if is_last
                else make_ball(ball, layout, has_scan_noise).row(layout)
            )
        write_shard(path, shard, shapes)
    finish_dataset(path)
    return path


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("still") / "balls.zarr", BALLS)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("moving") / "balls.zarr", MOVING)


def owner(path: Path, array: str, values: NDArray[Any]) -> int:
    """The one shape of the store whose array holds all the given rows, each at most once."""
    given_rows = [row.tobytes() for row in values]
    stored = zarr.open_group(str(path), mode="r")[array]
    found = [
        shape
        for shape in range(stored.shape[0])
        if set(given_rows) <= {row.tobytes() for row in stored[shape].reshape(-1, *values.shape[1:])}
    ]
    assert len(found) == 1 and len(set(given_rows)) == len(given_rows)
    return found[0]


@given(
    available=st.integers(1, 5 * BLOCK),
    count=st.integers(1, 4 * BLOCK),
    seed=st.integers(0, 99),
)
def test_rows_are_distinct_while_they_last_and_no_block_is_read_in_vain(
    available: int, count: int, seed: int
) -> None:
    blocks, chosen = draw_rows(available, count, np.random.default_rng(seed))
    rows = blocks[chosen // BLOCK] * BLOCK + chosen % BLOCK
    assert rows.shape == (count,) and rows.min() >= 0 and rows.max() < available
    assert len(np.unique(rows)) == min(count, available)
    assert np.bincount(rows).max() == -(-count // min(available, count))
    assert len(blocks) == len(set(blocks)) <= -(-count // BLOCK) + 1


@pytest.mark.parametrize("count", [300, BLOCK, 3000])
def test_clouds_and_queries_are_rows_of_one_shape_of_the_split(balls: Path, count: int) -> None:
    source = ShapeSource(balls, "train", ShapeConfig(points=count, noise=0.0), seed=3)
    np.testing.assert_array_equal(source.shapes, [0, 1, 2])
    batch = source.batch(0, 8)
    assert batch.inputs.shape == (8, count, 3) and batch.queries.shape == (8, 2048, 3)
    shapes = [owner(balls, "points", cloud) for cloud in batch.inputs]
    assert shapes == [owner(balls, "uniform_queries", queries) for queries in batch.queries]
    assert set(shapes) == {0, 1, 2}


@pytest.mark.parametrize(("near_share", "queries"), [(0.0, 2048), (0.25, 1000), (1.0, 512)])
def test_labels_are_the_inside_of_the_ball(balls: Path, near_share: float, queries: int) -> None:
    config = ShapeConfig(points=50, noise=0.0, near_share=near_share, queries=queries)
    batch = ShapeSource(balls, "train", config, seed=0).batch(5, 4)
    assert batch.queries.shape == (4, queries, 3) and batch.queries.dtype == np.float32
    for cloud, asked, occupied in zip(batch.inputs, batch.queries, batch.occupancy, strict=True):
        shape = owner(balls, "points", cloud)
        np.testing.assert_array_equal(occupied, np.linalg.norm(asked, axis=1) < radius_of(shape))
        near = round(queries * near_share)
        if near:
            assert owner(balls, "near_queries", asked[queries - near :]) == shape
        if near < queries:
            assert owner(balls, "uniform_queries", asked[: queries - near]) == shape


def test_a_batch_depends_on_seed_step_and_rank_alone(balls: Path, moving: Path) -> None:
    for source, again, other in (
        (
            ShapeSource(balls, "train", ShapeConfig(points=40), 1),
            ShapeSource(balls, "train", ShapeConfig(points=40), 1),
            ShapeSource(balls, "train", ShapeConfig(points=40), 2),
        ),
        (
            SequenceSource(moving, "train", SequenceConfig(FRAMES, points=40), 1),
            SequenceSource(moving, "train", SequenceConfig(FRAMES, points=40), 1),
            SequenceSource(moving, "train", SequenceConfig(FRAMES, points=40), 2),
        ),
    ):
        source.batch(3, 2, rank=0)  # what was drawn before does not matter
        first = source.batch(7, 2, rank=1)
        same = again.batch(7, 2, rank=1)
        assert first.seed == same.seed
        np.testing.assert_array_equal(first.inputs, same.inputs)
        for different in (source.batch(8, 2, 1), source.batch(7, 2, 0), other.batch(7, 2, 1)):
            assert different.seed != first.seed
            assert not np.array_equal(different.inputs, first.inputs)


def test_noise_is_gaussian_of_the_asked_deviation(balls: Path, tmp_path: Path) -> None:
    config = ShapeConfig(points=4000, noise=0.005)
    clouds = ShapeSource(balls, "val", config, seed=0).batch(0, 4).inputs
    off = np.linalg.norm(clouds, axis=-1) - radius_of(3)
    assert off.std() == pytest.approx(0.005, rel=0.05)
    assert abs(off.mean()) < 0.0005
    scans = write_balls(tmp_path / "scans.zarr", BALLS, has_scan_noise=True)
    cloud = ShapeSource(scans, "val", replace(config, points=1000), seed=0).batch(0, 1).inputs[0]
    assert owner(scans, "points", cloud) == 3  # a scanner's points get no more noise


def test_a_partial_cloud_is_cut_across_one_axis(balls: Path) -> None:
    config = ShapeConfig("partial", points=1500, noise=0.0, kept_share=0.7)
    source = ShapeSource(balls, "val", config, seed=0)
    kept = []
    for cloud in source.batch(0, 40).inputs:
        assert owner(balls, "points", cloud) == 3
        reach = cloud.max(axis=0) / radius_of(3)  # 1 on the axes that are whole
        assert (np.sort(reach)[1:] > 0.95).all() and (cloud.min(axis=0) < -0.95 * radius_of(3)).all()
        kept.append((1 + reach.min()) / 2)
    assert min(kept) > 0.68 and min(kept) < 0.75 and max(kept) > 0.93


def test_voxels_pictures_numbers_and_nothing(balls: Path) -> None:
    stored = zarr.open_group(str(balls), mode="r")
    voxels = ShapeSource(balls, "train", ShapeConfig("voxels"), seed=0).batch(0, 3).inputs
    assert voxels.shape == (3, SIDE, SIDE, SIDE) and voxels.dtype == np.float32
    grids = np.unpackbits(stored["voxels"][:3], axis=-1)
    assert all(any(np.array_equal(one, grid) for grid in grids) for one in voxels)

    same_size = ShapeConfig("views", picture_side=PIXELS)
    pictures = ShapeSource(balls, "train", same_size, seed=0).batch(0, 30).inputs
    known = np.moveaxis(stored["view_rgb"][:3].reshape(-1, PIXELS, PIXELS, 3), -1, 1) / np.float32(255)
    found = [[np.array_equal(one, each) for each in known].index(True) for one in pictures]
    assert len(set(found)) > 6  # of 9 views
    scaled = ShapeSource(balls, "train", ShapeConfig("views"), seed=0).batch(0, 2).inputs
    assert scaled.shape == (2, 3, 224, 224) and scaled.min() >= 0 and scaled.max() <= 1
    np.testing.assert_allclose(
        scaled.mean(axis=(2, 3)),
        ShapeSource(balls, "train", same_size, seed=0).batch(0, 2).inputs.mean(axis=(2, 3)),
        atol=0.02,
    )

    numbered = ShapeSource(balls, "train", ShapeConfig("index"), seed=0).batch(0, 6)
    assert numbered.inputs.dtype == np.int64
    for number, asked in zip(numbered.inputs, numbered.queries, strict=True):
        assert owner(balls, "uniform_queries", asked) == number  # the first three shapes are the split
    assert ShapeSource(balls, "train", ShapeConfig("nothing"), seed=0).batch(0, 6).inputs.shape == (6, 0)


def test_crops_ask_inside_a_small_box_that_the_cloud_reaches(balls: Path) -> None:
    config = ShapeConfig(
        "crops", points=2000, noise=0.0, queries=64, near_share=0.5, crop_side=0.4, crop_query_side=0.2
    )
    batch = ShapeSource(balls, "train", config, seed=0).batch(0, 6)
    assert batch.lower is not None and batch.upper is not None
    np.testing.assert_allclose(batch.upper - batch.lower, 0.4, atol=1e-6)
    for row in range(6):
        middle = (batch.lower[row] + batch.upper[row]) / 2
        assert (np.abs(batch.queries[row] - middle) <= 0.1 + 1e-6).all()
        assert (np.abs(batch.inputs[row] - middle) <= 0.1 + 1e-6).all(axis=1).any()
        shape = owner(balls, "points", batch.inputs[row])
        inside = np.linalg.norm(batch.queries[row], axis=1) < radius_of(shape)
        np.testing.assert_array_equal(batch.occupancy[row], inside)


def ball_of(trajectory: NDArray[np.float32]) -> int:
    return round(float(trajectory[-1, 0, 0] - trajectory[0, 0, 0]) / 0.05) - 1


def test_sequences_keep_their_correspondence_and_labels_hold_at_their_time(moving: Path) -> None:
    config = SequenceConfig(FRAMES, points=300, noise=0.0, queries=512, near_share=0.5, trajectories=100)
    batch = SequenceSource(moving, "train", config, seed=0).batch(0, 12)
    assert batch.inputs.shape == (12, FRAMES, 300, 3)
    assert batch.first is not None and batch.later is not None and batch.trajectories is not None
    assert batch.trajectories.shape == (12, FRAMES, 100, 3)
    assert (batch.first.times == 0).all()
    assert set(batch.later.times) <= set(np.linspace(0, 1, FRAMES, dtype=np.float32))
    assert len(set(batch.later.times)) > 2
    for row in range(12):
        ball = ball_of(batch.inputs[row])
        assert ball in (0, 1, 2) and ball == ball_of(batch.trajectories[row])
        for clouds in (batch.inputs[row], batch.trajectories[row]):
            for frame, time in enumerate(np.linspace(0, 1, FRAMES)):
                np.testing.assert_allclose(clouds[frame], clouds[0] + centre_of(ball, time), atol=1e-6)
        for asked in (batch.first, batch.later):
            distance = np.linalg.norm(asked.queries[row] - centre_of(ball, asked.times[row]), axis=1)
            np.testing.assert_array_equal(asked.occupancy[row], distance < radius_of(ball))


def test_ends_alone_without_correspondence_and_nothing(moving: Path) -> None:
    ends = SequenceConfig(
        FRAMES, points=2000, noise=0.0, ends_only=True, has_correspondence=False, queries=0, trajectories=10
    )
    batch = SequenceSource(moving, "val", ends, seed=0).batch(0, 2)
    assert batch.inputs.shape == (2, 2, 2000, 3) and batch.first is None and batch.later is None
    shifted = batch.inputs[0] - np.stack([centre_of(3, 0.0), centre_of(3, 1.0)])[:, None]
    np.testing.assert_allclose(np.linalg.norm(shifted, axis=-1), radius_of(3), atol=1e-5)
    assert np.abs(shifted[0] - shifted[1]).max() > 0.1
    only = SequenceSource(moving, "train", SequenceConfig(FRAMES, points=0, sequences=1), seed=0)
    np.testing.assert_array_equal(only.sequences, [0])
    batch = only.batch(0, 3)
    assert batch.inputs.shape == (3, 1, 0) and batch.first is not None
    for row in range(3):
        distance = np.linalg.norm(batch.first.queries[row], axis=1)
        np.testing.assert_array_equal(batch.first.occupancy[row], distance < radius_of(0))


def test_what_a_dataset_lacks_is_said_with_its_cure(balls: Path, moving: Path, tmp_path: Path) -> None:
    bare = write_balls(tmp_path / "bare.zarr", replace(BALLS, voxel_side=0, views=0, view_size=0))
    scans = write_balls(tmp_path / "scans.zarr", replace(BALLS, uniform_queries=0, near_queries=0))
    with pytest.raises(DatasetError, match=r"voxels.*--voxels"):
        ShapeSource(bare, "train", ShapeConfig("voxels"), 0)
    with pytest.raises(DatasetError, match=r"side 32.*64.*--voxels"):
        ShapeSource(balls, "train", ShapeConfig("voxels", voxel_side=64), 0)
    with pytest.raises(DatasetError, match=r"views.*--views"):
        ShapeSource(bare, "train", ShapeConfig("views"), 0)
    with pytest.raises(DatasetError, match=r"uniform queries.*tessera preprocess"):
        ShapeSource(scans, "train", ShapeConfig(), 0)
    with pytest.raises(DatasetError, match=r"sequences.*tessera preprocess"):
        ShapeSource(moving, "train", ShapeConfig(), 0)
    with pytest.raises(DatasetError, match=r"still shapes.*--frames 5"):
        SequenceSource(balls, "train", SequenceConfig(FRAMES), 0)
    with pytest.raises(DatasetError, match=r"sequences of 5 frames.*--frames 17"):
        SequenceSource(moving, "train", SequenceConfig(17), 0)
    with pytest.raises(DatasetError, match="split 'test'"):
        ShapeSource(balls, "test", ShapeConfig(), 0)
