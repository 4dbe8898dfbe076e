"""Pooling over occupied voxels against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convonet.layers.pooling import OccupiedVoxels

GRID = (4, 5, 6)  # z, y, x


def random_points(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (count, 3)) * np.array(GRID[::-1])
    return torch.tensor(points, dtype=torch.float32), torch.tensor(rng.integers(0, 2, count))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 200))
def test_mean_and_max_equal_a_loop_over_the_points(seed: int, count: int) -> None:
    points, batch = random_points(seed, count)
    features = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    voxels = OccupiedVoxels.of_points(points, batch, GRID)
    groups: dict[tuple[int, ...], list[int]] = {}
    for row in range(count):
        x, y, z = (int(value) for value in points[row].floor())
        groups.setdefault((int(batch[row]), z, y, x), []).append(row)
    keys = sorted(groups)
    flat = [((b * GRID[0] + z) * GRID[1] + y) * GRID[2] + x for b, z, y, x in keys]
    assert voxels.flat_index.tolist() == flat
    mean = torch.stack([features[groups[key]].mean(0) for key in keys])
    largest = torch.stack([features[groups[key]].amax(0) for key in keys])
    torch.testing.assert_close(voxels.mean(features), mean)
    torch.testing.assert_close(voxels.max(features), largest)
    torch.testing.assert_close(voxels.to_points(mean)[groups[keys[0]][0]], mean[0])


def test_a_point_outside_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        OccupiedVoxels.of_points(torch.tensor([[6.0, 0.0, 0.0]]), torch.zeros(1, dtype=torch.int64), GRID)
