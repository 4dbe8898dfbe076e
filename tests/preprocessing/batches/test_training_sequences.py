"""Batches of sequences against the store as zarr reads it, and against moving balls, whose inside is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from preprocessing.batches.training_sequences import SequenceConfig, SequenceSource
from preprocessing.errors import DatasetError
from tests.preprocessing.ball_datasets import BALLS, FRAMES, MOVING, PIXELS, center_of, radius_of, write_balls


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_balls(tmp_path_factory.mktemp("moving") / "balls.zarr", MOVING)


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
                np.testing.assert_allclose(clouds[frame], clouds[0] + center_of(ball, time), atol=1e-6)
        for asked in (batch.first, batch.later):
            distance = np.linalg.norm(asked.queries[row] - center_of(ball, asked.times[row]), axis=1)
            np.testing.assert_array_equal(asked.occupancy[row], distance < radius_of(ball))


def test_ends_alone_without_correspondence_and_nothing(moving: Path) -> None:
    ends = SequenceConfig(
        FRAMES, "pair", points=2000, noise=0.0, has_correspondence=False, queries=0, trajectories=10
    )
    batch = SequenceSource(moving, "val", ends, seed=0).batch(0, 2)
    assert batch.inputs.shape == (2, 2, 2000, 3) and batch.first is None and batch.later is None
    shifted = batch.inputs[0] - np.stack([center_of(3, 0.0), center_of(3, 1.0)])[:, None]
    np.testing.assert_allclose(np.linalg.norm(shifted, axis=-1), radius_of(3), atol=1e-5)
    assert np.abs(shifted[0] - shifted[1]).max() > 0.1
    only = SequenceSource(moving, "train", SequenceConfig(FRAMES, "nothing", sequences=1), seed=0)
    np.testing.assert_array_equal(only.sequences, [0])
    batch = only.batch(0, 3)
    assert batch.inputs.shape == (3, 1, 0) and batch.first is not None
    for row in range(3):
        distance = np.linalg.norm(batch.first.queries[row], axis=1)
        np.testing.assert_array_equal(batch.first.occupancy[row], distance < radius_of(0))


def test_pictures_are_those_of_one_camera_at_all_times(moving: Path) -> None:
    stored = zarr.open_group(str(moving), mode="r")["view_rgb"]
    known = {
        np.moveaxis(stored[ball, :, view], -1, 1).tobytes(): (ball, view)
        for ball in range(3)
        for view in range(MOVING.views)
    }
    same_size = SequenceConfig(FRAMES, "images", queries=64, trajectories=20, picture_side=PIXELS)
    source = SequenceSource(moving, "train", same_size, seed=0)
    batch = source.batch(0, 30)
    assert batch.inputs.shape == (30, FRAMES, 3, PIXELS, PIXELS) and batch.inputs.dtype == np.float32
    assert batch.first is not None and batch.later is not None and batch.trajectories is not None
    found = [known[np.rint(255 * one).astype(np.uint8).tobytes()] for one in batch.inputs]
    assert len(set(found)) > 6  # of 9
    for (ball, _), track in zip(found, batch.trajectories, strict=True):
        assert ball == ball_of(track)  # what is seen is what is asked

    scaled = SequenceSource(moving, "train", replace(same_size, picture_side=224), seed=0).batch(0, 2).inputs
    assert scaled.shape == (2, FRAMES, 3, 224, 224) and scaled.min() >= 0 and scaled.max() <= 1
    same = source.batch(0, 2).inputs
    np.testing.assert_allclose(scaled.mean(axis=(3, 4)), same.mean(axis=(3, 4)), atol=0.02)


def test_what_a_dataset_lacks_is_said_with_its_cure(moving: Path, tmp_path: Path) -> None:
    balls = write_balls(tmp_path / "balls.zarr", BALLS)
    unseen = write_balls(tmp_path / "unseen.zarr", replace(MOVING, views=0, view_size=0))
    with pytest.raises(DatasetError, match=r"still shapes.*--frames 5"):
        SequenceSource(balls, "train", SequenceConfig(FRAMES), 0)
    with pytest.raises(DatasetError, match=r"sequences of 5 frames.*--frames 17"):
        SequenceSource(moving, "train", SequenceConfig(17), 0)
    with pytest.raises(DatasetError, match=r"unseen\.zarr: holds no rendered views.*--views"):
        SequenceSource(unseen, "train", SequenceConfig(FRAMES, "images"), 0)
    with pytest.raises(ValueError, match="inputs must be one of tracks, pair, images, nothing"):
        SequenceConfig(inputs="voxels")  # type: ignore[arg-type]
