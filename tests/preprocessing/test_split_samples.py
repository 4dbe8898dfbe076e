"""Rows of shuffled arrays, drawn out of as few blocks as hold them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.dataset import BLOCK
from preprocessing.split_samples import draw_rows


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
