"""What the U-Nets of planes and of volumes share: down and up."""

from __future__ import annotations

from torch import Tensor, nn


class UNet(nn.Module):
    """Two convolutions at each resolution on the way down, and again on the way up beside what was there before.

    Subclasses fill `down` with a module for each level, `up` with one for each but the coarsest, from coarse to fine,
    `pool`, which halves the resolution by maxima, and `final`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.pool: nn.Module = nn.Identity()
        self.final: nn.Module = nn.Identity()

    def ascend(self, step: nn.Module, coarse: Tensor, skip: Tensor) -> Tensor:
        """Apply one module of `up` to coarse features and the finer ones of the way down."""
        return step(coarse, skip)  # type: ignore[no-any-return]

    def forward(self, grid: Tensor) -> Tensor:
        """(B, channels, H, W) or (B, channels, D, H, W) to the same; sides are multiples of 2 ** (levels - 1)."""
        skips: list[Tensor] = []
        x = grid
        for level, convs in enumerate(self.down):
            x = convs(x if level == 0 else self.pool(x))
            skips.append(x)
        for step, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = self.ascend(step, x, skip)
        return self.final(x)  # type: ignore[no-any-return]
