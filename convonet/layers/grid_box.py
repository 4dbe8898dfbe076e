"""Boxes of a grid's cells: which part of a volume an answer depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class GridBox:
    """Cells of a (B, C, D, H, W) volume: from `low` to `high`, exclusive, along z, y, x."""

    low: Triple
    high: Triple

    @classmethod
    def whole(cls, shape: Triple) -> GridBox:
        """All cells of a grid (D, H, W)."""
        return cls((0, 0, 0), shape)

    def grown(self, shape: Triple) -> GridBox:
        """With the cells around it, which a 3x3x3 convolution reads, as far as the grid (D, H, W) goes."""
        low, high = (max(0, at - 1) for at in self.low), zip(self.high, shape, strict=True)
        return GridBox(_triple(low), _triple(min(end, at + 1) for at, end in high))

    def halved(self, step: Triple) -> GridBox:
        """The cells of the next coarser grid that hold its own."""
        high = (-(-at // each) for at, each in zip(self.high, step, strict=True))
        return GridBox(_triple(at // each for at, each in zip(self.low, step, strict=True)), _triple(high))

    def doubled(self, step: Triple) -> GridBox:
        """Its cells in the next finer grid."""
        high = (at * each for at, each in zip(self.high, step, strict=True))
        return GridBox(_triple(at * each for at, each in zip(self.low, step, strict=True)), _triple(high))

    def joined(self, other: GridBox) -> GridBox:
        """The smallest box that holds both."""
        low, high = zip(self.low, other.low, strict=True), zip(self.high, other.high, strict=True)
        return GridBox(_triple(map(min, low)), _triple(map(max, high)))

    def of(self, volume: Tensor, held: GridBox) -> Tensor:
        """A view of its cells, of a volume that holds another box: itself where the two are one."""
        if self == held:
            return volume
        for axis, start in enumerate(held.low):
            volume = volume.narrow(axis + 2, self.low[axis] - start, self.high[axis] - self.low[axis])
        return volume


def _triple(numbers: Iterable[int]) -> Triple:
    z, y, x = numbers
    return z, y, x
