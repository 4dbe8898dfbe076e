"""Trilinear reading of a feature volume at continuous positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1))


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
    limits = torch.tensor([width, height, depth], device=queries.device)
    position = torch.minimum((queries - 0.5).clamp_min(0), (limits - 1).to(queries.dtype))
    low = torch.minimum(position.long(), (limits - 2).clamp_min(0))
    fraction = position - low
    high = torch.minimum(low + 1, limits - 1)
    bounds = (low, high)
    weights_of = (1 - fraction, fraction)
    rows, weights = [], []
    for cx, cy, cz in CORNERS:
        row = (batch_index * depth + bounds[cz][:, 2]) * height + bounds[cy][:, 1]
        rows.append(row * width + bounds[cx][:, 0])
        weights.append(weights_of[cx][:, 0] * weights_of[cy][:, 1] * weights_of[cz][:, 2])
    return F.embedding_bag(
        torch.stack(rows, dim=1),
        table,
        per_sample_weights=torch.stack(weights, dim=1).to(table.dtype),
        mode="sum",
    )
