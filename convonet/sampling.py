"""Trilinear reading of a feature volume at continuous positions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_trilinear(volume: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
    """Interpolate a feature volume at continuous positions.

    Args:
        volume: (B, C, D, H, W) features at cell centres, indexed z, y, x.
        queries: (N, 3) float32 positions x, y, z in voxel units; cell (0, 0, 0) is centred at 0.5.
        batch_index: (N,) int64 crop of each query.

    Returns:
        (N, C) features; positions outside the volume take the border's value.

    Peng et al. 2020, section 3.3, with cell-centred sampling so that it agrees with the scattering of
    the points. One fused weighted gather (`embedding_bag`) over the eight surrounding cells.
    """
    _, channels, depth, height, width = volume.shape
    table = volume.permute(0, 2, 3, 4, 1).reshape(-1, channels)
    sides = torch.tensor([[width], [height], [depth]], device=queries.device)
    position = torch.minimum((queries.T - 0.5).clamp_min(0), (sides - 1).to(queries.dtype)).contiguous()
    low = torch.minimum(position.long(), (sides - 2).clamp_min(0))
    upper = position - low
    lower = 1 - upper
    first = ((batch_index * depth + low[2]) * height + low[1]) * width + low[0]
    # The far cell along an axis; a side of one cell has none, and then the weight `upper` is 0.
    strides = (height * width * (depth > 1), width * (height > 1), int(width > 1))
    corners = list(itertools.product((0, 1), repeat=3))
    steps = [sum(c * stride for c, stride in zip(corner, strides, strict=True)) for corner in corners]
    weights = torch.empty(len(queries), len(corners), dtype=table.dtype, device=queries.device)
    sides_of = (lower, upper)
    for column, (z, y, x) in enumerate(corners):
        weights[:, column] = sides_of[z][2] * sides_of[y][1] * sides_of[x][0]
    rows = first[:, None] + torch.tensor(steps, device=queries.device)
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
