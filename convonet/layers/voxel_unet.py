"""A 3D U-Net whose every output voxel depends on a known, bounded neighborhood.

It differs from the U-Net of Cicek et al. 2016 in what tiling needs: the normalization acts on the
channels of one voxel (no statistics over the crop), skips are added rather than concatenated, and few
convolutions at full resolution keep the receptive field small and the cost low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convonet.layers.grid_box import GridBox
from convonet.layers.pieces import each_piece
from convonet.layers.sparse_convolution import ConvolutionAt, ReachedVoxels, SumGroups
from convonet.precision import relu_

SLAB = 24  # voxels along the depth that inference computes at a time
SPARSE_SHARE = 1 / 8  # of the voxels occupied, up to which the first convolution visits those alone


class LayerNorm(torch.autograd.Function):
    """Layer normalization over the last axis.

    The gradients of weight and bias are summed here: on a CPU torch's own sums bfloat16 in bfloat16, which over a
    volume's many voxels loses most of them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., C), (C,) and (C,) to (..., C)."""
        y, mean, scale = torch.native_layer_norm(x, x.shape[-1:], weight, bias, 1e-5)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of all three."""
        x, weight, bias, mean, scale = ctx.saved_tensors
        (gradient,) = gradients
        channels, rows = x.shape[-1:], tuple(range(x.dim() - 1))
        of_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, channels, mean, scale, weight, bias, [True, False, False]
        )
        return of_x, (gradient * F.layer_norm(x, channels)).sum(rows), gradient.sum(rows)


class VoxelNorm(nn.Module):
    """Layer normalization over the channels of each voxel: local, so that crops agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape."""
        return self.of_rows(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)

    def of_rows(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return LayerNorm.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class ConvBlock(nn.Module):
    """3x3x3 convolution, 1x3x3 in planes, normalization, ReLU; added to its input where the widths allow."""

    def __init__(self, channels_in: int, channels_out: int, is_flat: bool = False) -> None:
        super().__init__()
        depth = 1 if is_flat else 3
        self.conv = nn.Conv3d(
            channels_in, channels_out, (depth, 3, 3), padding=(depth // 2, 1, 1), bias=False
        )
        self.norm = VoxelNorm(channels_out)
        self.is_residual = channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, D, H, W) to (B, C_out, D, H, W)."""
        if torch.is_grad_enabled():
            y = torch.relu(self.norm(self.conv(x)))
            return x + y if self.is_residual else y
        if x.device.type != "cpu" or self.conv.kernel_size[0] == 1:
            y = relu_(self.norm(self.conv(x)))
            return y.add_(x) if self.is_residual else y
        batch, _, depth, height, width = x.shape
        is_cast = torch.is_autocast_enabled("cpu")
        y = torch.empty(
            (batch, self.conv.out_channels, depth, height, width),
            dtype=torch.get_autocast_dtype("cpu") if is_cast else x.dtype,
            memory_format=torch.channels_last_3d,
        )
        each_piece(lambda start: self._slab(x, y, start), range(0, depth, SLAB))
        return y

    def _slab(self, x: Tensor, y: Tensor, start: int) -> None:
        """Compute some of the depth of `y`: less memory than all at once, and what a piece needs stays in the cache."""
        end = min(start + SLAB, x.shape[2])
        low, high = max(0, start - 1), min(end + 1, x.shape[2])
        rows = x[:, :, low:high]
        if high - low < end - start + 2:
            rows = F.pad(rows, (0, 0, 0, 0, int(start == 0), int(end == x.shape[2])))
        slab = relu_(self.norm(F.conv3d(rows, self.conv.weight, padding=(0, 1, 1))))
        if self.is_residual:
            slab += x[:, :, start:end]
        y[:, :, start:end] = slab

    def forward_occupied(self, features: Tensor, occupied: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        """The block for an input that is 0 outside a few voxels, in time proportional to their number.

        One matrix product gives what each occupied voxel adds to each of its 27 neighbors; the sums over a
        neighbor's terms are the convolution. Every other voxel of the output is relu(bias of the norm).

        Args:
            features: (V, C_in) of the occupied voxels; occupied: (V,) int64 their index in the flat grid, sorted.
            grid: (B, D, H, W).

        Returns:
            (B, C_out, D, H, W) in channels-last memory order.
        """
        reached = ReachedVoxels.around(occupied, grid)
        channels_out, channels_in = self.conv.weight.shape[:2]
        weight = self.conv.weight.permute(1, 2, 3, 4, 0).reshape(channels_in, -1)
        terms = (features @ weight).view(-1, channels_out)
        sums: Tensor = SumGroups.apply(  # type: ignore[no-untyped-call]
            terms, reached.terms, reached.first_term, reached.voxel_of_term
        )
        active = torch.relu(self.norm.of_rows(sums))
        if self.is_residual:
            active = active.index_add(0, torch.searchsorted(reached.flat_index, occupied), features)
        elsewhere = torch.relu(self.norm.bias).to(sums.dtype)
        batch, depth, height, width = grid
        volume = elsewhere.repeat(batch * depth * height * width, 1)
        volume = volume.index_copy_(0, reached.flat_index, active)
        return volume.view(batch, depth, height, width, channels_out).permute(0, 4, 1, 2, 3)

    def forward_at(self, x: Tensor, voxels: Tensor) -> Tensor:
        """The block at some voxels alone: (B, C_in, D, H, W) and (V,) int64 flat indices to (V, C_out)."""
        weight = self.conv.weight.to(x.dtype)
        sums, there = ConvolutionAt.apply(x, weight, voxels)  # type: ignore[no-untyped-call]
        active: Tensor = torch.relu(self.norm.of_rows(sums))
        return active + there if self.is_residual else active


@dataclass(frozen=True)
class _Needs:
    """The cells of a level at which each step must be computed.

    Attributes:
        pooled: input of the encoder's two blocks.
        between: these.
        encoded: their output, which is pooled again and added on the way up.
        added: that sum, the decoder's input.
        decoded: its output.
    """

    pooled: GridBox
    between: GridBox
    encoded: GridBox
    added: GridBox
    decoded: GridBox


class VoxelUNet(nn.Module):
    """Encoder and decoder over `levels` resolutions.

    Args:
        channels: width of the input, of the output and of the finest level; doubled at each level.
        levels: number of resolutions; the grid's sides must be multiples of 2 ** (levels - 1).
        is_flat: for planes: (B, C, 1, H, W), of which H and W are halved; `forward` alone takes them.
    """

    def __init__(self, channels: int, levels: int, is_flat: bool = False) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]
        self.levels = levels
        self.step = (1, 2, 2) if is_flat else (2, 2, 2)
        self.encode_finest = ConvBlock(channels, channels, is_flat)
        steps = list(pairwise(widths))
        self.encode = nn.ModuleList(
            nn.Sequential(ConvBlock(fine, coarse, is_flat), ConvBlock(coarse, coarse, is_flat))
            for fine, coarse in steps
        )
        self.reduce = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in steps)
        self.decode = nn.ModuleList(ConvBlock(fine, fine, is_flat) for fine, _ in steps)
        self.out = nn.Conv3d(channels, channels, 1)

    @property
    def pooling_factor(self) -> int:
        """Voxels of the finest level along a side of one voxel of the coarsest."""
        return int(2 ** (self.levels - 1))

    @property
    def receptive_radius(self) -> int:
        """Largest distance in voxels, along an axis, at which an input voxel still reaches an output voxel.

        Walks one output voxel's interval down the decoder and the encoder for each of its positions on
        the pooling grid; `tests/convonet/layers/test_voxel_unet.py` compares it with the measured influence.
        """
        return max(self._reach(position) for position in range(self.pooling_factor))

    def _reach(self, position: int) -> int:
        intervals: list[tuple[int, int]] = []
        low = high = position
        for _ in range(self.levels - 1):  # down the decoder: one convolution a level
            low, high = low - 1, high + 1
            intervals.append((low, high))
            low, high = low // 2, high // 2
        low, high = low - 2, high + 2  # the coarsest level's two convolutions
        for level in range(self.levels - 2, -1, -1):
            low, high = 2 * low, 2 * high + 1  # max pooling reads both children
            skip_low, skip_high = intervals[level]
            convolutions = 1 if level == 0 else 2
            low, high = min(low, skip_low) - convolutions, max(high, skip_high) + convolutions
        return max(position - low, high - position)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C, D, H, W)."""
        return self._finish(self.encode_finest(x))

    def forward_occupied(
        self,
        features: Tensor,
        occupied: Tensor,
        grid: tuple[int, int, int, int],
        box: GridBox | None = None,
    ) -> Tensor:
        """The U-Net of a volume that is 0 outside the occupied voxels.

        Args:
            features: (V, C) of the occupied voxels.
            occupied: (V,) int64 their index in the flattened (B, D, H, W) grid, sorted.
            grid: (B, D, H, W).
            box: what is asked for, the whole grid by default. Nothing is computed that it does not depend on, which
                is most of a crop with its halo.

        Returns:
            (B, C, D, H, W), of the box, in channels-last memory order.
        """
        return self._finish(self._first_block(features, occupied, grid), box)

    def forward_occupied_at(
        self, features: Tensor, occupied: Tensor, grid: tuple[int, int, int, int], voxels: Tensor
    ) -> Tensor:
        """The same at some voxels alone, with their (R,) int64 flat indices, all different: (R, C)."""
        needs = self._needs(grid[1:], GridBox.whole(grid[1:]))
        y = self._before_last_block(self._first_block(features, occupied, grid), needs)
        if self.levels > 1:
            last = self.decode[0]
            assert isinstance(last, ConvBlock)
            rows = last.forward_at(y, voxels)
        else:
            rows = y.permute(0, 2, 3, 4, 1).reshape(-1, y.shape[1]).index_select(0, voxels)
        return F.linear(rows, self.out.weight.flatten(1), self.out.bias)

    def _first_block(self, features: Tensor, occupied: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        if features.device.type == "cpu" and len(occupied) <= SPARSE_SHARE * math.prod(grid):
            return self.encode_finest.forward_occupied(features, occupied, grid)
        dense = features.new_zeros(math.prod(grid), features.shape[1]).index_copy(0, occupied, features)
        return self.encode_finest(dense.view(*grid, -1).permute(0, 4, 1, 2, 3))  # type: ignore[no-any-return]

    def _needs(self, shape: tuple[int, int, int], box: GridBox) -> list[_Needs]:
        """What each level, the finest first, must compute for a box of the output of a (D, H, W) grid."""
        shapes, boxes = [shape], [box]
        added: list[GridBox] = []
        for _ in range(self.levels - 1):
            # Whole cells of the next level, so that its raised output is neither cut nor copied.
            added.append(boxes[-1].grown(shapes[-1]).halved(self.step).doubled(self.step))
            boxes.append(added[-1].halved(self.step))
            shapes.append(GridBox.whole(shapes[-1]).halved(self.step).high)
        added.append(boxes[-1])  # of the coarsest level, to which nothing is added
        encoded = between = pooled = boxes[-1]
        needs: list[_Needs] = []
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                encoded = added[level].joined(pooled.doubled(self.step))
            if level > 0:
                between = encoded.grown(shapes[level])
                pooled = between.grown(shapes[level])
            needs.append(_Needs(pooled, between, encoded, added[level], boxes[level]))
        return needs[::-1]

    def _before_last_block(self, finest: Tensor, needs: list[_Needs]) -> Tensor:
        """All between the first block and the last, `decode[0]`, which a single level does not have.

        Of the cells that the finest level's `added` says.
        """
        below, held = finest, GridBox.whole((finest.shape[2], finest.shape[3], finest.shape[4]))
        skips = [needs[0].added.of(below, held)]
        for level, encode in enumerate(self.encode, start=1):
            assert isinstance(encode, nn.Sequential)
            first, second = encode
            need = needs[level]
            y = largest_of_cell(need.pooled.doubled(self.step).of(below, held), self.step)
            y = need.between.of(first(y), need.pooled)
            below, held = need.encoded.of(second(y), need.between), need.encoded
            skips.append(need.added.of(below, held))
        y = skips.pop()
        factors = [float(factor) for factor in self.step]
        for level in reversed(range(self.levels - 1)):
            raised = F.interpolate(mix_channels(self.reduce[level], y), scale_factor=factors, mode="nearest")
            y = raised.add_(skips.pop())
            if level > 0:
                y = needs[level].decoded.of(self.decode[level](y), needs[level].added)
        return y

    def _finish(self, finest: Tensor, box: GridBox | None = None) -> Tensor:
        """What follows the first block, at a box or everywhere."""
        shape = (finest.shape[2], finest.shape[3], finest.shape[4])
        box = box or GridBox.whole(shape)
        needs = self._needs(shape, box)
        y = self._before_last_block(finest, needs)
        if self.levels > 1:
            y = self.decode[0](y)  # the block's input is free from here on
        y = box.of(mix_channels(self.out, y), needs[0].added)
        return y.contiguous(memory_format=torch.channels_last_3d)


def mix_channels(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1x1x1 convolution as the matrix product it is: torch's own, in float32 on a CPU, copies its input."""
    assert isinstance(conv, nn.Conv3d)
    return F.linear(x.permute(0, 2, 3, 4, 1), conv.weight.flatten(1), conv.bias).permute(0, 4, 1, 2, 3)


def largest_of_cell(x: Tensor, step: tuple[int, int, int]) -> Tensor:
    """Maximum over cells of `step` voxels in the number format of `x`: autocast would compute the same in float32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.max_pool3d(x, step)
