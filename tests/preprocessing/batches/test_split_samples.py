"""Rows of shuffled arrays, drawn out of as few blocks as hold them, by the seed, step and rank alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.batches.split_samples import draw_rows
from preprocessing.batches.training_sequences import SequenceConfig, SequenceSource
from preprocessing.batches.training_shapes import ShapeConfig, ShapeSource
from preprocessing.dataset import BLOCK
from tests.preprocessing.ball_datasets import BALLS, FRAMES, MOVING, write_balls


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


@pytest.mark.parametrize(("still", "moving"), [("points", "tracks"), ("image", "images")])
@pytest.mark.parametrize("frames", [0, FRAMES])
def test_a_batch_depends_on_seed_step_and_rank_alone(
    still: str, moving: str, frames: int, tmp_path: Path
) -> None:
    layout = replace(MOVING if frames else BALLS, voxel_side=0)
    path = write_balls(tmp_path / "balls.zarr", layout)

    def source(seed: int) -> ShapeSource | SequenceSource:
        if frames:
            sequences = SequenceConfig(frames, moving, points=40, picture_side=8)  # type: ignore[arg-type]
            return SequenceSource(path, "train", sequences, seed)
        shapes = ShapeConfig(still, points=40, picture_side=8)  # type: ignore[arg-type]
        return ShapeSource(path, "train", shapes, seed)

    first = source(1)
    first.batch(3, 8, rank=0)  # what was drawn before does not matter
    drawn, same = first.batch(7, 8, rank=1), source(1).batch(7, 8, rank=1)
    assert drawn.seed == same.seed
    np.testing.assert_array_equal(drawn.inputs, same.inputs)
    for different in (first.batch(8, 8, 1), first.batch(7, 8, 0), source(2).batch(7, 8, 1)):
        assert different.seed != drawn.seed
        assert not np.array_equal(different.inputs, drawn.inputs)
