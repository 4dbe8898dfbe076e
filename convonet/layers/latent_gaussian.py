"""Latent codes as independent normal distributions (Kingma and Welling 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatentGaussian:
    """A diagonal Gaussian over the latents of a batch of shapes.

    Attributes:
        mean: (B, Z).
        log_std: (B, Z) logarithm of the standard deviation.
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(B, Z) one latent for each shape, differentiable in mean and deviation (reparameterised)."""
        noise = torch.randn(
            self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device
        )
        return self.mean + torch.exp(self.log_std) * noise

    def kl_to_prior(self) -> Tensor:
        """(B, Z) Kullback-Leibler divergence of each coordinate to N(0, 1), in nats."""
        variance = torch.exp(2 * self.log_std)
        return 0.5 * (self.mean**2 + variance - 1) - self.log_std
