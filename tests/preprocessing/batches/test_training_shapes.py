"""Batches of shapes against the store as zarr reads it, and against balls, whose inside is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from preprocessing.batches.training_shapes import ShapeConfig, ShapeSource
from preprocessing.dataset import BLOCK
from preprocessing.errors import DatasetError
from tests.preprocessing.ball_datasets import BALLS, MOVING, PIXELS, SIDE, radius_of, write_balls


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("still") / "balls.zarr", BALLS)


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

    same_size = ShapeConfig("image", picture_side=PIXELS)
    pictures = ShapeSource(balls, "train", same_size, seed=0).batch(0, 30).inputs
    known = np.moveaxis(stored["view_rgb"][:3].reshape(-1, PIXELS, PIXELS, 3), -1, 1) / np.float32(255)
    found = [[np.array_equal(one, each) for each in known].index(True) for one in pictures]
    assert len(set(found)) > 6  # of 9 views
    scaled = ShapeSource(balls, "train", ShapeConfig("image"), seed=0).batch(0, 2).inputs
    assert scaled.shape == (2, 3, 224, 224) and scaled.min() >= 0 and scaled.max() <= 1
    np.testing.assert_allclose(
        scaled.mean(axis=(2, 3)),
        ShapeSource(balls, "train", same_size, seed=0).batch(0, 2).inputs.mean(axis=(2, 3)),
        atol=0.02,
    )

    numbered = ShapeSource(balls, "train", ShapeConfig("shape"), seed=0).batch(0, 6)
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


def test_what_a_dataset_lacks_is_said_with_its_cure(balls: Path, tmp_path: Path) -> None:
    bare = write_balls(tmp_path / "bare.zarr", replace(BALLS, voxel_side=0, views=0, view_size=0))
    scans = write_balls(tmp_path / "scans.zarr", replace(BALLS, uniform_queries=0, near_queries=0))
    moving = write_balls(tmp_path / "moving.zarr", MOVING)
    with pytest.raises(DatasetError, match=r"voxels.*--voxels"):
        ShapeSource(bare, "train", ShapeConfig("voxels"), 0)
    with pytest.raises(DatasetError, match=r"side 32.*64.*--voxels"):
        ShapeSource(balls, "train", ShapeConfig("voxels", voxel_side=64), 0)
    with pytest.raises(DatasetError, match=r"views.*--views"):
        ShapeSource(bare, "train", ShapeConfig("image"), 0)
    with pytest.raises(DatasetError, match=r"uniform queries.*tessera preprocess"):
        ShapeSource(scans, "train", ShapeConfig(), 0)
    with pytest.raises(DatasetError, match=r"sequences.*tessera preprocess"):
        ShapeSource(moving, "train", ShapeConfig(), 0)
    with pytest.raises(DatasetError, match="split 'test'"):
        ShapeSource(balls, "test", ShapeConfig(), 0)
