"""PointNet++: the point encoder of the pointconv baseline (Qi et al. 2017; Peng et al. 2020, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convonet.conv_onet.neighborhoods import farthest_points, interpolate_three, points_in_ball, take_points


class PointFeatures(NamedTuple):
    """Points and a feature at each.

    Attributes:
        points: (B, N, 3) x, y, z in the unit cube.
        features: (B, N, C).
    """

    points: Tensor
    features: Tensor


@dataclass(frozen=True)
class BallGrouping:
    """How a level of the network is sampled and grouped.

    Attributes:
        centers: number of points that farthest point sampling keeps.
        radius: of the ball around each, in units of the cube's side.
        neighbors: points taken from each ball.
    """

    centers: int
    radius: float
    neighbors: int


class SharedLayers(nn.Module):
    """Linear layers shared by all points, each followed by batch norm and rectifier.

    Args:
        widths: of the input and of every layer.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.linears = nn.ModuleList(nn.Linear(wide_in, wide) for wide_in, wide in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(wide) for _, wide in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) to (..., widths[-1]); statistics run over all leading axes."""
        leading = x.shape[:-1]
        x = x.flatten(0, -2)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = torch.relu(norm(linear(x)))
        return x.view(*leading, -1)


class PointNetPlusPlus(nn.Module):
    """Two levels of balls, one global level, and interpolation back to every point.

    Args:
        feature_size: C, width of the result.
        width: of the first layers (64 in the original); all others are multiples of it.
        fine, coarse: sampling and grouping of the two levels.
    """

    def __init__(self, feature_size: int, width: int, fine: BallGrouping, coarse: BallGrouping) -> None:
        super().__init__()
        self.fine = fine
        self.coarse = coarse
        w = width
        self.abstract1 = SharedLayers([3 + 3, w, w, 2 * w])
        self.abstract2 = SharedLayers([3 + 2 * w, 2 * w, 2 * w, 4 * w])
        self.abstract3 = SharedLayers([3 + 4 * w, 4 * w, 8 * w, 16 * w])
        self.propagate3 = SharedLayers([4 * w + 16 * w, 4 * w, 4 * w])
        self.propagate2 = SharedLayers([2 * w + 4 * w, 4 * w, 2 * w])
        self.propagate1 = SharedLayers([2 * w, 2 * w, 2 * w, feature_size])

    def forward(self, points: Tensor) -> PointFeatures:
        """(B, N, 3) points in the unit cube to a feature at each."""
        fine = self._abstract(self.abstract1, self.fine, PointFeatures(points, points))
        coarse = self._abstract(self.abstract2, self.coarse, fine)
        whole = self.abstract3(torch.cat([coarse.points, coarse.features], dim=-1)).amax(dim=1, keepdim=True)

        spread = whole.expand(-1, coarse.points.shape[1], -1)
        at_coarse = self.propagate3(torch.cat([coarse.features, spread], dim=-1))
        at_fine = interpolate_three(fine.points, coarse.points, at_coarse)
        at_fine = self.propagate2(torch.cat([fine.features, at_fine], dim=-1))
        at_points = self.propagate1(interpolate_three(points, fine.points, at_fine))
        return PointFeatures(points, at_points)

    @staticmethod
    def _abstract(layers: nn.Module, grouping: BallGrouping, level: PointFeatures) -> PointFeatures:
        centers = take_points(level.points, farthest_points(level.points, grouping.centers))
        members = points_in_ball(level.points, centers, grouping.radius, grouping.neighbors)
        offsets = take_points(level.points, members) - centers[:, :, None]
        grouped = torch.cat([offsets, take_points(level.features, members)], dim=-1)
        return PointFeatures(centers, layers(grouped).amax(dim=2))
