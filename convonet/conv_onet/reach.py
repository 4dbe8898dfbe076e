"""How far a U-Net looks."""

from __future__ import annotations


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
