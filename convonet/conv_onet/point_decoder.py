"""Features of a cloud's points to logits at queries: the pointconv baseline (Peng et al. 2020, section 4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from convonet.conv_onet.local_decoder import ConditionedBlocks
from convonet.conv_onet.neighborhoods import distances
from convonet.conv_onet.pointnetpp import PointFeatures

Kernel = Literal["gaussian", "inverse"]

WEIGHTS_AT_ONCE = 2**24  # 64 MiB of weights between queries and points


def interpolate_features(
    queries: Tensor, cloud: PointFeatures, kernel: Kernel = "gaussian", gaussian_width: float = 0.2
) -> Tensor:
    """Weighted mean of the features of all points.

    Args:
        queries: (B, Q, 3).
        cloud: points (B, N, 3) in the same unit and their features (B, N, C).
        kernel: "gaussian", exp(-(d / width) ** 2) without the usual factor 2, or "inverse", 1 / d.
        gaussian_width: in units of the cube's side.

    Returns:
        (B, Q, C). Far from all points, where Gaussian weights underflow, the nearest points decide.
    """
    gaps = distances(queries, cloud.points) + 1e-5
    if kernel == "gaussian":
        weights = torch.softmax(-gaps.square() / gaussian_width**2, dim=2)
    else:
        weights = 1 / gaps
        weights = weights / weights.sum(dim=2, keepdim=True)
    return weights @ cloud.features


class LocalPointDecoder(nn.Module):
    """Residual blocks conditioned on features interpolated between the points themselves.

    Args:
        head: from positions and features to logits.
        kernel: weights of points by distance.
        gaussian_width: of the Gaussian kernel.
    """

    def __init__(
        self, head: ConditionedBlocks, kernel: Kernel = "gaussian", gaussian_width: float = 0.2
    ) -> None:
        super().__init__()
        self.kernel: Kernel = kernel
        self.gaussian_width = gaussian_width
        self.head = head

    def forward(self, queries: Tensor, cloud: PointFeatures) -> Tensor:
        """(B, Q, 3) queries in the unit cube to logits (B, Q), in parts that bound the memory of weights."""
        part = max(1, WEIGHTS_AT_ONCE // max(1, cloud.points.shape[0] * cloud.points.shape[1]))
        features = [
            interpolate_features(some, cloud, self.kernel, self.gaussian_width)
            for some in torch.split(queries, part, dim=1)
        ]
        return self.head(queries, torch.cat(features, dim=1))  # type: ignore[no-any-return]
