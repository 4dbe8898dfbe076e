"""What an Occupancy Network is trained for: occupancy, with a latent a bound of the shapes' likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convonet.onet.network import OccupancyNetwork
from convonet.shape_training import ShapeBatch, ShapeObjective


@dataclass(frozen=True)
class BoundObjective(ShapeObjective):
    """The evidence lower bound of shapes, for networks with a latent."""

    def loss(self, network: nn.Module, batch: ShapeBatch) -> tuple[Tensor, dict[str, float]]:
        """The negative bound of a query's share."""
        assert isinstance(network, OccupancyNetwork)
        generator = torch.Generator(batch.queries.device).manual_seed(batch.seed)
        elbo = network.elbo(batch.inputs, batch.queries, batch.occupancy, generator)
        queries = batch.queries.shape[1]
        figures = {"kl": elbo.kl.mean().item(), "cross_entropy": elbo.reconstruction.mean().item() / queries}
        return elbo.loss / queries, figures

    def logits(self, network: nn.Module, batch: ShapeBatch) -> Tensor:
        """(B, Q) at the posterior's mean."""
        assert isinstance(network, OccupancyNetwork)
        features = network.encode(batch.inputs)
        posterior = network.infer_latent(features, batch.queries, batch.occupancy)
        return network.decode(features, batch.queries, posterior.mean)
