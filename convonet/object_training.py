"""The objectives of single shapes and of sequences: what one batch costs a network of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convonet.conv_onet import ConvOnet, ConvOnetConfig, CropInputs
from convonet.oflow import (
    FlowBatch,
    FlowLossConfig,
    OccupancyFlow,
    OccupancyFlowConfig,
    OccupancyNetwork4D,
    OccupancyNetwork4DConfig,
    OccupancySamples,
    flow_loss,
    onet4d_loss,
)
from convonet.oflow.losses import correspondence_loss
from convonet.onet import OccupancyNetwork, OccupancyNetworkConfig
from convonet.precision import network_precision
from convonet.registry import NetworkConfig, occupancy_threshold
from convonet.training import CROPS, Objective, occupancy_iou


class ShapeArrays(Protocol):
    """A batch of shapes as arrays.

    `inputs` are what `encode` of the network takes; `lower` and `upper` the (B, 3) boxes of crops or None; `queries`
    (B, Q, 3) and `occupancy` (B, Q) float32; `seed` decides what the loss draws.
    """

    @property
    def inputs(self) -> NDArray[Any]: ...
    @property
    def lower(self) -> NDArray[np.float32] | None: ...
    @property
    def upper(self) -> NDArray[np.float32] | None: ...
    @property
    def queries(self) -> NDArray[np.float32]: ...
    @property
    def occupancy(self) -> NDArray[np.float32]: ...
    @property
    def seed(self) -> int: ...


class TimedQueries(Protocol):
    """(B, Q, 3) queries, (B, Q) occupancy and (B,) times of a batch of sequences, float32."""

    @property
    def queries(self) -> NDArray[np.float32]: ...
    @property
    def occupancy(self) -> NDArray[np.float32]: ...
    @property
    def times(self) -> NDArray[np.float32]: ...


class SequenceArrays(Protocol):
    """A batch of sequences as arrays; see `FlowBatch` for the shapes, and `ShapeArrays` for the seed."""

    @property
    def inputs(self) -> NDArray[np.float32]: ...
    @property
    def first(self) -> TimedQueries | None: ...
    @property
    def later(self) -> TimedQueries | None: ...
    @property
    def trajectories(self) -> NDArray[np.float32] | None: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class ShapeBatch:
    """A batch of shapes on a device.

    Attributes:
        inputs: what the network's `encode` takes.
        queries: (B, Q, 3); occupancy: (B, Q) of 0 and 1.
        generator: of what the loss draws.
    """

    inputs: Tensor | CropInputs
    queries: Tensor
    occupancy: Tensor
    generator: torch.Generator


@dataclass(frozen=True)
class SequenceBatch:
    """A batch of sequences on a device, and the generator of what the loss draws."""

    flow: FlowBatch
    generator: torch.Generator


@dataclass(frozen=True)
class ShapeObjective:
    """Occupancy of still shapes: `ConvOnet`, and `OccupancyNetwork` with or without a latent.

    Attributes:
        config: of the network.
    """

    config: ConvOnetConfig | OccupancyNetworkConfig

    @property
    def threshold(self) -> float:
        """Probability that counts as occupied."""
        return occupancy_threshold(self.config)

    def load(self, arrays: ShapeArrays, device: torch.device) -> ShapeBatch:
        """Move a batch to a device; crops get their cells there."""
        inputs: Tensor | CropInputs = torch.from_numpy(arrays.inputs).to(device)
        if isinstance(self.config, ConvOnetConfig) and self.config.family == "crops":
            assert isinstance(inputs, Tensor) and arrays.lower is not None and arrays.upper is not None
            lower, upper = (torch.from_numpy(corner).to(device) for corner in (arrays.lower, arrays.upper))
            resolution, projections = self.config.crop_resolution, self.config.projections
            inputs = CropInputs.in_boxes(inputs, lower, upper, resolution, projections)
        return ShapeBatch(
            inputs,
            torch.from_numpy(arrays.queries).to(device),
            torch.from_numpy(arrays.occupancy).to(device),
            torch.Generator(device).manual_seed(arrays.seed),
        )

    def loss(self, model: nn.Module, batch: ShapeBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean binary cross-entropy of a query; with a latent its share of the negative evidence bound."""
        if isinstance(model, OccupancyNetwork) and model.config.latent_size:
            assert isinstance(batch.inputs, Tensor)
            elbo = model.elbo(batch.inputs, batch.queries, batch.occupancy, batch.generator)
            queries = batch.queries.shape[1]
            figures = {
                "kl": elbo.kl.mean().item(),
                "cross_entropy": elbo.reconstruction.mean().item() / queries,
            }
            return elbo.loss / queries, figures
        with network_precision(batch.queries.device, isinstance(model, ConvOnet)):
            logits: Tensor = model(batch.inputs, batch.queries)
        logits = logits.float()
        loss = F.binary_cross_entropy_with_logits(logits, batch.occupancy)
        return loss, {"iou": occupancy_iou(logits.detach(), batch.occupancy, self.threshold)}

    def validate(self, network: nn.Module, batches: Iterable[ShapeBatch]) -> dict[str, float]:
        """IoU over the queries of all batches, at the posterior's mean where there is a latent."""
        logits, labels = [], []
        for batch in batches:
            logits.append(self._logits(network, batch))
            labels.append(batch.occupancy)
        return {"validation_iou": occupancy_iou(torch.cat(logits), torch.cat(labels), self.threshold)}

    def _logits(self, network: nn.Module, batch: ShapeBatch) -> Tensor:
        if isinstance(network, OccupancyNetwork):
            assert isinstance(batch.inputs, Tensor)
            features = network.encode(batch.inputs)
            posterior = network.infer_latent(features, batch.queries, batch.occupancy)
            return network.decode(features, batch.queries, posterior.mean)
        with network_precision(batch.queries.device):
            logits: Tensor = network(batch.inputs, batch.queries)
        return logits.float()


@dataclass(frozen=True)
class FlowObjective:
    """Shape at t = 0 and motion: `OccupancyFlow`.

    Attributes:
        terms: of the loss.
    """

    terms: FlowLossConfig

    def load(self, arrays: SequenceArrays, device: torch.device) -> SequenceBatch:
        """Move a batch to a device."""
        return _sequence_batch(arrays, device)

    def loss(self, model: nn.Module, batch: SequenceBatch) -> tuple[Tensor, dict[str, float]]:
        """The sum of the terms; float32 throughout, as the solver's tolerances need."""
        assert isinstance(model, OccupancyFlow)
        terms = flow_loss(model, batch.flow, self.terms, batch.generator)
        figures = {
            name: value.item()
            for name, value in vars(terms).items()
            if value.requires_grad  # those that are switched on
        }
        return terms.total, figures

    def validate(self, network: nn.Module, batches: Iterable[SequenceBatch]) -> dict[str, float]:
        """IoU at the later frames; mean distance of trajectories for a network without a decoder."""
        assert isinstance(network, OccupancyFlow)
        if self.terms.reconstruction:
            return _sequence_iou(network, batches)
        distances = []
        for batch in batches:
            assert batch.flow.trajectories is not None
            codes = network.encode(batch.flow.inputs)
            distances.append(correspondence_loss(network, codes, batch.flow.trajectories, backward=False))
        return {"validation_distance": torch.stack(distances).mean().item()}


class SpaceTimeObjective:
    """Occupancy at any time: `OccupancyNetwork4D`."""

    def load(self, arrays: SequenceArrays, device: torch.device) -> SequenceBatch:
        """Move a batch to a device."""
        return _sequence_batch(arrays, device)

    def loss(self, model: nn.Module, batch: SequenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean binary cross-entropy at one random frame of each sequence."""
        assert isinstance(model, OccupancyNetwork4D) and batch.flow.later is not None
        return onet4d_loss(model, batch.flow.inputs, batch.flow.later), {}

    def validate(self, network: nn.Module, batches: Iterable[SequenceBatch]) -> dict[str, float]:
        """IoU at the later frames."""
        assert isinstance(network, OccupancyNetwork4D)
        return _sequence_iou(network, batches)


def objective_of(config: NetworkConfig, flow_terms: FlowLossConfig | None = None) -> Objective:
    """What a network of this configuration is trained for.

    Args:
        config: of any kind of network.
        flow_terms: of the loss of an `OccupancyFlow`; by default occupancy where it has a decoder, else
            trajectories.
    """
    if isinstance(config, ConvOnetConfig | OccupancyNetworkConfig):
        return ShapeObjective(config)
    if isinstance(config, OccupancyNetwork4DConfig):
        return SpaceTimeObjective()
    if isinstance(config, OccupancyFlowConfig):
        has_decoder = config.decoder is not None
        return FlowObjective(
            flow_terms or FlowLossConfig(reconstruction=has_decoder, correspondence=not has_decoder)
        )
    return CROPS


def _sequence_batch(arrays: SequenceArrays, device: torch.device) -> SequenceBatch:
    def samples(asked: TimedQueries | None) -> OccupancySamples | None:
        if asked is None:
            return None
        moved = (torch.from_numpy(part).to(device) for part in (asked.queries, asked.occupancy, asked.times))
        return OccupancySamples(*moved)

    tracks = arrays.trajectories
    flow = FlowBatch(
        inputs=torch.from_numpy(arrays.inputs).to(device),
        first=samples(arrays.first),
        later=samples(arrays.later),
        trajectories=None if tracks is None else torch.from_numpy(tracks).to(device),
    )
    return SequenceBatch(flow, torch.Generator(device).manual_seed(arrays.seed))


def _sequence_iou(
    network: OccupancyFlow | OccupancyNetwork4D, batches: Iterable[SequenceBatch]
) -> dict[str, float]:
    logits, labels = [], []
    for batch in batches:
        later = batch.flow.later
        assert later is not None
        logits.append(network(batch.flow.inputs, later.queries, later.times))
        labels.append(later.occupancy)
    return {
        "validation_iou": occupancy_iou(
            torch.cat(logits), torch.cat(labels), occupancy_threshold(network.config)
        )
    }
