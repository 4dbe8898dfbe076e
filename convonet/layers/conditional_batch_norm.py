"""Batch normalization of query activations, plain or with an affine map that the shape decides."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointBatchNorm(nn.BatchNorm1d):
    """Batch normalization over all points of all shapes of a batch, activations last."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, Q, H) over its first two axes.

        In training mode the statistics are the batch's and the running ones follow them; in evaluation
        mode the running ones are used, so that a query's value does not depend on its neighbors.

        Raises:
            ValueError: in training mode, if there is only one point in all.
        """
        return super().forward(x.flatten(0, 1)).view_as(x)


class ConditionalBatchNorm(nn.Module):
    """Batch normalization whose scale and shift are linear in the shape's features.

    y = scale(c) * (x - mean) / sqrt(variance + 1e-5) + shift(c). A fresh layer has scale 1 and shift 0
    for every shape (Mescheder et al. 2019, supplement 1.1, after de Vries et al. 2017).
    """

    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__()
        self.scale = nn.Linear(feature_size, hidden_size)
        self.shift = nn.Linear(feature_size, hidden_size)
        self.batch_norm = PointBatchNorm(hidden_size, affine=False)
        for layer, start in ((self.scale, 1.0), (self.shift, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, start)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Normalize activations.

        Args:
            x: (B, Q, H) activations of Q queries of each shape.
            features: (B, C) features of the shapes.

        Returns:
            (B, Q, H).
        """
        scale, shift = self.scale(features)[:, None], self.shift(features)[:, None]
        if self.training:
            return torch.addcmul(shift, scale, self.batch_norm(x))
        mean, variance = self.batch_norm.running_mean, self.batch_norm.running_var
        assert mean is not None and variance is not None
        scale = scale * torch.rsqrt(variance + self.batch_norm.eps)
        return torch.addcmul(shift - scale * mean, scale, x)  # both maps folded into one pass over x
