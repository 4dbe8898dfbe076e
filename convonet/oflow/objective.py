"""What networks of sequences are trained for: a shape and its motion, or occupancy at any time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convonet.oflow.losses import FlowBatch, FlowLossConfig, correspondence_loss, flow_loss
from convonet.oflow.network import OccupancyFlow
from convonet.oflow.onet4d import OccupancyNetwork4D, onet4d_loss
from convonet.oflow.presets import OCCUPANCY_THRESHOLD
from convonet.training import Objective, validation_iou


@dataclass(frozen=True)
class FlowObjective(Objective):
    """Shape at t = 0 and motion: `OccupancyFlow`.

    Attributes:
        terms: of the loss.
    """

    terms: FlowLossConfig
    batch_type = FlowBatch
    may_idle = True  # no velocity is asked for where every later frame of a batch is the first

    def loss(self, network: nn.Module, batch: FlowBatch) -> tuple[Tensor, dict[str, float]]:
        """The sum of the terms; float32 throughout, as the solver's tolerances need."""
        assert isinstance(network, OccupancyFlow)
        generator = torch.Generator(batch.inputs.device).manual_seed(batch.seed)
        terms = flow_loss(network, batch, self.terms, generator)
        figures = {
            name: value.item()
            for name, value in vars(terms).items()
            if value.requires_grad  # those that are switched on
        }
        return terms.total, figures

    def validate(self, network: nn.Module, batches: Iterable[FlowBatch]) -> dict[str, float]:
        """IoU at the later frames; mean distance of trajectories for a network without a decoder."""
        assert isinstance(network, OccupancyFlow)
        if self.terms.reconstruction:
            return _later_iou(network, batches)
        distances = []
        for batch in batches:
            assert batch.trajectories is not None
            codes = network.encode(batch.inputs)
            distances.append(correspondence_loss(network, codes, batch.trajectories, backward=False))
        return {"validation_distance": torch.stack(distances).mean().item()}


class SpaceTimeObjective(Objective):
    """Occupancy at any time: `OccupancyNetwork4D`."""

    batch_type = FlowBatch

    def loss(self, network: nn.Module, batch: FlowBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean binary cross-entropy at one random frame of each sequence."""
        assert isinstance(network, OccupancyNetwork4D) and batch.later is not None
        return onet4d_loss(network, batch.inputs, batch.later), {}

    def validate(self, network: nn.Module, batches: Iterable[FlowBatch]) -> dict[str, float]:
        """IoU at the later frames."""
        return _later_iou(network, batches)


def _later_iou(network: nn.Module, batches: Iterable[FlowBatch]) -> dict[str, float]:
    later = ((batch.inputs, batch.later) for batch in batches if batch.later is not None)
    return validation_iou(
        ((network(inputs, asked.queries, asked.times), asked.occupancy) for inputs, asked in later),
        OCCUPANCY_THRESHOLD,
    )
