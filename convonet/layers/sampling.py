"""Trilinear reading of a feature volume at continuous positions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TrilinearReads:
    """The eight cells that each query reads, and how much of each.

    Attributes:
        cells: (N, 8) int64 index in the flattened (B, D, H, W) grid.
        weights: (N, 8) float32 that sum to 1.
    """

    cells: Tensor
    weights: Tensor

    @classmethod
    def at(cls, queries: Tensor, batch_index: Tensor, grid_shape: Sequence[int]) -> TrilinearReads:
        """Find them for (N, 3) float32 queries of crops `batch_index`, each of (D, H, W) cells."""
        depth, height, width = grid_shape
        limits = torch.tensor([[width], [height], [depth]], device=queries.device)
        position = torch.minimum((queries.T - 0.5).clamp_min(0), (limits - 1).to(queries.dtype)).contiguous()
        low = torch.minimum(position.long(), (limits - 2).clamp_min(0))
        upper = position - low
        lower = 1 - upper
        first = ((batch_index * depth + low[2]) * height + low[1]) * width + low[0]
        # The far cell along an axis; a side of one cell has none, and then the weight `upper` is 0.
        strides = (height * width * (depth > 1), width * (height > 1), int(width > 1))
        corners = list(itertools.product((0, 1), repeat=3))
        steps = [sum(c * stride for c, stride in zip(corner, strides, strict=True)) for corner in corners]
        weights = torch.empty(len(queries), len(corners), dtype=queries.dtype, device=queries.device)
        sides_of = (lower, upper)
        for column, (z, y, x) in enumerate(corners):
            weights[:, column] = sides_of[z][2] * sides_of[y][1] * sides_of[x][0]
        return cls(first[:, None] + torch.tensor(steps, device=queries.device), weights)

    def mix(self, table: Tensor) -> Tensor:
        """Features (N, C) of the queries from those of all cells: one fused weighted gather."""
        weights = self.weights.to(table.dtype)
        return F.embedding_bag(self.cells, table, per_sample_weights=weights, mode="sum")


def sample_trilinear(volume: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
    """Interpolate a feature volume at continuous positions.

    Args:
        volume: (B, C, D, H, W) features at cell centers, indexed z, y, x.
        queries: (N, 3) float32 positions x, y, z in voxel units; cell (0, 0, 0) is centered at 0.5.
        batch_index: (N,) int64 crop of each query.

    Returns:
        (N, C) features; positions outside the volume take the border's value.

    Peng et al. 2020, section 3.3, with cell-centered sampling so that it agrees with the scattering of
    the points.
    """
    table = volume.permute(0, 2, 3, 4, 1).reshape(-1, volume.shape[1])
    return TrilinearReads.at(queries, batch_index, volume.shape[2:]).mix(table)
