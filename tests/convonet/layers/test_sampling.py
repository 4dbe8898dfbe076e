"""Trilinear sampling against torch's own grid_sample at the same cell convention."""

import numpy as np
import torch
from torch.nn import functional as F

from convonet.layers.sampling import sample_trilinear


def test_equals_grid_sample_with_cell_centers_and_border_values() -> None:
    generator = torch.Generator().manual_seed(1)
    depth, height, width = 5, 6, 7
    volume = torch.randn(2, 4, depth, height, width, generator=generator)
    limits = torch.tensor([width, height, depth], dtype=torch.float32)
    queries = torch.rand(500, 3, generator=generator) * (limits + 2) - 1
    batch = torch.arange(500) % 2
    sampled = sample_trilinear(volume, queries, batch)
    for number in range(2):
        grid = (2 * queries[batch == number] / limits - 1)[None, None, None]
        expected = F.grid_sample(
            volume[number : number + 1], grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        torch.testing.assert_close(sampled[batch == number], expected[0, :, 0, 0].T, atol=2e-5, rtol=1e-5)


def test_a_cell_center_takes_exactly_the_cell_value() -> None:
    volume = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, 3, 4, 5)).astype(np.float32))
    sampled = sample_trilinear(volume, torch.tensor([[3.5, 2.5, 1.5]]), torch.zeros(1, dtype=torch.int64))
    assert torch.equal(sampled[0], volume[0, :, 1, 2, 3])
