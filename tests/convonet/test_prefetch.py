"""Batches made ahead are the source's own, in order; a worker that dies is an error."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from convonet.prefetch import Prefetched
from tests.convonet.test_training import SphereBatch, Spheres


class Fatal(Spheres):
    """A source whose process dies at step 2."""

    def batch(self, step: int, batch_size: int, rank: int = 0) -> SphereBatch:
        if step == 2:
            time.sleep(1)  # what was made before is on its way
            os._exit(3)
        return super().batch(step, batch_size, rank)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_those_of_the_source(workers: int) -> None:
    ahead = Prefetched(Spheres, workers, first_step=5, last_step=12, batch_size=2, rank=1)
    try:
        for step in range(5, 12):
            expected, found = Spheres().batch(step, 2, 1), ahead.batch(step, 2, 1)
            np.testing.assert_array_equal(expected.queries, found.queries)
            np.testing.assert_array_equal(expected.distances, found.distances)
    finally:
        ahead.close()


def test_a_worker_that_dies_ends_the_run() -> None:
    ahead = Prefetched(Fatal, 1, first_step=0, last_step=9, batch_size=1)
    try:
        ahead.batch(0, 1)
        ahead.batch(1, 1)
        with pytest.raises(RuntimeError, match="died before step 2"):
            ahead.batch(2, 1)
    finally:
        ahead.close()
