"""What the U-Nets of planes and of volumes share: down, up, and how far they look."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class UNet(nn.Module, ABC):
    """Two convolutions at each resolution on the way down, and again on the way up beside what was there before.

    Subclasses fill `down` with a module for each level, `up` with one for each but the coarsest, from coarse to fine,
    and `final`.

    Args:
        levels: resolutions.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.final: nn.Module = nn.Identity()

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """Halve the resolution by maxima."""

    @abstractmethod
    def ascend(self, step: nn.Module, coarse: Tensor, skip: Tensor) -> Tensor:
        """Apply one module of `up` to coarse features and the finer ones of the way down."""

    @property
    def pooling_factor(self) -> int:
        """Sides of the grids are multiples of this number."""
        return 1 << (self.levels - 1)

    @property
    def receptive_radius(self) -> int:
        """Cells around an output that the convolutions reach."""
        return unet_reach(self.levels)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, channels, H, W) or (B, channels, D, H, W) to the same; sides are multiples of `pooling_factor`."""
        skips: list[Tensor] = []
        x = grid
        for level, convs in enumerate(self.down):
            x = convs(x if level == 0 else self.pool(x))
            skips.append(x)
        for step, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = self.ascend(step, x, skip)
        return self.final(x)  # type: ignore[no-any-return]


def unet_reach(levels: int) -> int:
    """Cells between an output of a U-Net and the farthest input that its convolutions reach.

    Args:
        levels: resolutions of the U-Net; each has two convolutions of width 3 on the way down, and each but
            the coarsest two on the way up; factor 2 between levels.

    Returns:
        The largest distance over all phases of the output within a coarsest cell, in cells.
    """
    return max(_reach_at(phase, levels) for phase in range(1 << (levels - 1)))


def _reach_at(position: int, levels: int) -> int:
    low = high = position
    for _ in range(levels - 1):  # up path, read backwards: two convolutions, then the coarser parent cell
        low, high = (low - 2) // 2, (high + 2) // 2
    low, high = low - 2, high + 2
    for _ in range(levels - 1):  # down path, read backwards: both children of a cell, then two convolutions
        low, high = 2 * low - 2, 2 * high + 1 + 2
    return max(position - low, high - position)
