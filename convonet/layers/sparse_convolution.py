"""3x3x3 convolutions of a volume of which few voxels are occupied, or of which few are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CACHED_VOXELS = 4096  # whose neighborhoods are gathered at once: they stay in a processor's cache


@dataclass(frozen=True)
class ReachedVoxels:
    """The voxels that a 3x3x3 convolution reaches from the occupied ones, and the terms of each one's sum.

    Attributes:
        flat_index: (M,) int64 index of each reached voxel in the flattened (B, D, H, W) grid, sorted.
        terms: (T,) int64: 27 * occupied voxel + tap, grouped by the voxel reached.
        first_term: (M,) int64 where each voxel's group starts.
        voxel_of_term: (27 V,) int64 the reached voxel of every term; M for those outside the grid.
    """

    flat_index: Tensor
    terms: Tensor
    first_term: Tensor
    voxel_of_term: Tensor

    @classmethod
    def around(cls, occupied: Tensor, grid: tuple[int, int, int, int]) -> ReachedVoxels:
        """Find them for (V,) int64 flat indices of occupied voxels."""
        _, depth, height, width = grid
        outside = torch.iinfo(torch.int64).max
        taps = torch.arange(27, device=occupied.device)
        # A tap at offset (-1, 0, 1) of the kernel reads there, so it carries a voxel the opposite way.
        dz, dy, dx = 1 - taps // 9, 1 - taps // 3 % 3, 1 - taps % 3
        z, y, x = occupied // (height * width) % depth, occupied // width % height, occupied % width
        target = occupied[:, None] + (dz * height + dy) * width + dx
        is_outside = torch.zeros_like(target, dtype=torch.bool)
        for position, step, side in ((z, dz, depth), (y, dy, height), (x, dx, width)):
            moved = position[:, None] + step
            is_outside |= (moved < 0) | (moved >= side)
        target = target.masked_fill_(is_outside, outside).view(-1)
        ordered, terms = torch.sort(target, stable=True)  # so that far points change no sum
        count = len(target) - int(is_outside.sum())
        flat_index, group, sizes = torch.unique_consecutive(
            ordered[:count], return_inverse=True, return_counts=True
        )
        voxel_of_term = torch.full_like(target, len(flat_index))
        voxel_of_term[terms[:count]] = group
        return cls(flat_index, terms[:count], torch.cumsum(sizes, 0) - sizes, voxel_of_term)


class SumGroups(torch.autograd.Function):
    """Sums of groups of rows, each row in at most one group; the gradient is a gather."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, members: Tensor, first: Tensor, group_of_row: Tensor) -> Tensor:
        """(R, C) rows, (T,) rows of the groups one after the other, (G,) their starts: (G, C)."""
        ctx.save_for_backward(group_of_row)
        return F.embedding_bag(members, rows, first, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """A row's gradient is its group's; rows in no group (index G) take 0."""
        (group_of_row,) = ctx.saved_tensors
        (gradient,) = gradients
        padded = torch.cat([gradient, gradient.new_zeros(1, gradient.shape[1])])
        return padded.index_select(0, group_of_row), None, None, None


class ConvolutionAt(torch.autograd.Function):
    """A 3x3x3 convolution, zeros around the volume, computed at some of its voxels only.

    Their neighborhoods are gathered part by part, and once more for the gradient of the weights: kept, they would
    take 27 times the memory of the voxels. The gradient of the volume is a dense convolution.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, weight: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution at some voxels, and what the volume itself holds there.

        Args:
            volume: (B, C, D, H, W); weight: (O, C, 3, 3, 3).
            voxels: (V,) int64 indices in the flattened (B, D, H, W) grid, all different.

        Returns:
            (V, O) and (V, C).
        """
        _, channels, depth, height, width = volume.shape
        padded = F.pad(volume.permute(0, 2, 3, 4, 1), (0, 0, 1, 1, 1, 1, 1, 1))
        x, y, z = voxels % width, voxels // width % height, voxels // (height * width)
        z = z + 2 * (z // depth)  # every crop is two layers deeper
        corners = (z * (height + 2) + y) * (width + 2) + x
        ctx.save_for_backward(padded, weight, voxels, corners)
        matrix = weight.permute(2, 3, 4, 1, 0).reshape(27 * channels, -1)
        sums = [neighborhoods(padded, part) @ matrix for part in torch.split(corners, CACHED_VOXELS)]
        centers = corners + ((height + 2) + 1) * (width + 2) + 1
        return torch.cat(sums), padded.view(-1, channels).index_select(0, centers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of the volume and of the weight; the latter's parts are summed in float32 at least."""
        padded, weight, voxels, corners = ctx.saved_tensors
        gradient, of_volume_there = gradients
        batch, depth, height, width, channels = padded.shape
        channels_out = len(weight)
        precision = torch.promote_types(weight.dtype, torch.float32)
        of_matrix = torch.zeros(channels_out, 27 * channels, dtype=precision, device=weight.device)
        parts = zip(torch.split(corners, CACHED_VOXELS), torch.split(gradient, CACHED_VOXELS), strict=True)
        for part, of_part in parts:
            of_matrix += of_part.T @ neighborhoods(padded, part)
        of_weight = of_matrix.to(weight.dtype).view(channels_out, 3, 3, 3, channels).permute(0, 4, 1, 2, 3)
        dense = gradient.new_zeros(batch, depth - 2, height - 2, width - 2, channels_out)
        dense.view(-1, channels_out).index_copy_(0, voxels, gradient)
        mirrored = weight.flip(2, 3, 4).transpose(0, 1)
        of_volume = F.conv3d(dense.permute(0, 4, 1, 2, 3), mirrored, padding=1)
        of_volume = of_volume.contiguous(memory_format=torch.channels_last_3d)
        rows = of_volume.permute(0, 2, 3, 4, 1).view(-1, channels)
        rows.index_add_(0, voxels, of_volume_there)
        return of_volume, of_weight, None


def neighborhoods(padded: Tensor, corners: Tensor) -> Tensor:
    """(B, D, H, W, C) and the (V,) flat indices of the first of 3x3x3 cells to what these hold: (V, 27 C)."""
    _, _, height, width, channels = padded.shape
    step = torch.arange(3, device=corners.device)
    cells = ((step[:, None] * height + step)[:, :, None] * width + step).flatten()
    rows = padded.view(-1, channels).index_select(0, (corners[:, None] + cells).flatten())
    return rows.view(len(corners), 27 * channels)
