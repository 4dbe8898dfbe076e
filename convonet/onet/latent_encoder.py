"""The latent of a shape: its posterior given occupied points, and what is computed with it.

A variational autoencoder (Kingma and Welling 2014) over shapes, prior N(0, 1) in every dimension
(Mescheder et al. 2019, section 3.2 and supplement 1.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from convonet.layers.latent_gaussian import LatentGaussian
from convonet.layers.pointnet import join_pooled


class LatentEncoder(nn.Module):
    """PointNet over query points with their occupancy: mean and deviation of the shape's latent.

    Args:
        latent_size: Z.
        feature_size: C, width of the encoder's features; 0 for a network without an encoder.
        hidden_size: width of every layer, 128 in the original.
        leaky: leaky rectifiers of slope 0.2 and mean instead of max pooling.
    """

    def __init__(self, latent_size: int, feature_size: int, hidden_size: int, leaky: bool) -> None:
        super().__init__()
        self.feature_size, self.leaky = feature_size, leaky
        self.fc_pos = nn.Linear(3, hidden_size)
        if feature_size:
            self.fc_c = nn.Linear(feature_size, hidden_size)
        self.fc_occupancy = nn.Linear(1, hidden_size)
        self.layers = nn.ModuleList(nn.Linear(width * hidden_size, hidden_size) for width in (1, 2, 2))
        self.fc_mean = nn.Linear(hidden_size, latent_size)
        self.fc_logstd = nn.Linear(hidden_size, latent_size)

    def forward(self, queries: Tensor, occupancy: Tensor, features: Tensor) -> LatentGaussian:
        """The posterior of each shape's latent.

        Args:
            queries: (B, Q, 3) positions.
            occupancy: (B, Q) 0 or 1 at them.
            features: (B, C).
        """
        x = self.fc_occupancy(occupancy[..., None]) + self.fc_pos(queries)
        if self.feature_size:
            x = x + self.fc_c(features)[:, None]
        first, *others = self.layers
        x = first(self._activate(x))
        for layer in others:
            x = layer(self._activate(self._join_pooled(x)))
        pooled = x.mean(dim=1) if self.leaky else x.amax(dim=1)
        return LatentGaussian(self.fc_mean(pooled), self.fc_logstd(pooled))

    def _activate(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.2) if self.leaky else torch.relu(x)

    def _join_pooled(self, x: Tensor) -> Tensor:
        if not self.leaky:
            return join_pooled(x)
        return torch.cat([x, x.mean(dim=1, keepdim=True).expand_as(x)], dim=2)


def interpolate_latents(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Latents on the straight line between two, both ends included.

    Args:
        start: (Z,) the first latent.
        end: (Z,) the last one.
        steps: number of latents, at least 2.

    Returns:
        (steps, Z).

    Raises:
        ValueError: if `steps` is below 2 or the latents differ in size.
    """
    if steps < 2:
        raise ValueError(f"an interpolation has at least 2 steps, not {steps}")
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"latents must both be (Z,), not {tuple(start.shape)} and {tuple(end.shape)}")
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    return (1 - share) * start + share * end
