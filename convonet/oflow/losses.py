"""The training loss of Occupancy Flow: occupancy at t = 0 and at one later time, trajectories, latent codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from convonet.layers.latent_gaussian import LatentGaussian
from convonet.oflow.network import FlowCodes, OccupancyFlow
from convonet.training import ArrayBatch
from foundation.errors import SettingError


@dataclass(frozen=True)
class FlowLossConfig:
    """Which terms are added up.

    Attributes:
        reconstruction: occupancy of the first frame and of one later frame.
        correspondence: trajectories from the first frame on.
        backward_correspondence: trajectories from the last frame back as well; the forward ones are then
            averaged over all frames, the first included.
        kl_weight: of the divergence of the latent codes from N(0, 1), averaged over their coordinates.
    """

    reconstruction: bool = True
    correspondence: bool = False
    backward_correspondence: bool = False
    kl_weight: float = 1e-4

    def __post_init__(self) -> None:
        if not (self.reconstruction or self.correspondence):
            raise SettingError("nothing to train: switch on reconstruction, correspondence or both")
        if self.backward_correspondence and not self.correspondence:
            raise SettingError("backward_correspondence extends correspondence: switch that on too")
        if self.kl_weight < 0:
            raise SettingError(f"kl_weight must not be negative, not {self.kl_weight}")


@dataclass(frozen=True)
class OccupancySamples(ArrayBatch):
    """Query points of one time with their labels.

    Attributes:
        queries: (B, Q, 3).
        occupancy: (B, Q) float 0 or 1.
        times: (B,) time of each item.
    """

    queries: Tensor
    occupancy: Tensor
    times: Tensor


@dataclass(frozen=True)
class FlowBatch(ArrayBatch):
    """A batch of training sequences.

    Attributes:
        inputs: what the encoders see (see `OccupancyFlow.encode`).
        first: samples at t = 0; None without the reconstruction term.
        later: samples at a random frame of each sequence; None without the reconstruction term.
        trajectories: (B, L, M, 3) surface points at L frames equally spaced from t = 0 to t = 1, point m the
            same in all; None without the correspondence term.
        seed: of what the loss draws.
    """

    inputs: Tensor
    first: OccupancySamples | None = None
    later: OccupancySamples | None = None
    trajectories: Tensor | None = None
    seed: int = 0

    @classmethod
    def from_arrays(cls, arrays: Any, device: torch.device) -> FlowBatch:
        """See `ArrayBatch`; the samples of both times are batches themselves."""
        batch = super().from_arrays(arrays, device)
        first, later = (
            None if asked is None else OccupancySamples.from_arrays(asked, device)
            for asked in (arrays.first, arrays.later)
        )
        return replace(batch, first=first, later=later)


@dataclass(frozen=True)
class FlowLoss:
    """The terms of the loss, each a scalar; absent terms are 0.

    Attributes:
        reconstruction_first: binary cross entropy at t = 0.
        reconstruction_later: binary cross entropy at the later frames.
        correspondence: mean distance between predicted and true trajectories.
        kl_shape: weighted divergence of z.
        kl_motion: weighted divergence of z_t.
    """

    reconstruction_first: Tensor
    reconstruction_later: Tensor
    correspondence: Tensor
    kl_shape: Tensor
    kl_motion: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimized."""
        reconstruction = self.reconstruction_first + self.reconstruction_later
        return reconstruction + self.correspondence + self.kl_shape + self.kl_motion


def flow_loss(
    network: OccupancyFlow,
    batch: FlowBatch,
    config: FlowLossConfig,
    generator: torch.Generator | None = None,
) -> FlowLoss:
    """The loss of one training step.

    Args:
        network: in training mode.
        batch: with the parts that the terms need.
        config: which terms.
        generator: draws the latent codes.

    Raises:
        ValueError: if the batch lacks a part, or the network a decoder, that a term needs.

    Niemeyer et al. 2019, equations 5 to 8.
    """
    codes, shape, motion = network.encode_with_posteriors(batch.inputs, generator)
    zero = batch.inputs.new_zeros(())
    first = later = correspondence = zero
    if config.reconstruction:
        if batch.first is None or batch.later is None:
            raise ValueError("the reconstruction term needs occupancy samples at t = 0 and at a later frame")
        first = reconstruction_loss(network, codes, batch.first, at_first_frame=True)
        later = reconstruction_loss(network, codes, batch.later, at_first_frame=False)
    if config.correspondence:
        if batch.trajectories is None:
            raise ValueError("the correspondence term needs trajectories")
        correspondence = correspondence_loss(
            network, codes, batch.trajectories, backward=config.backward_correspondence
        )
    return FlowLoss(
        reconstruction_first=first,
        reconstruction_later=later,
        correspondence=correspondence,
        kl_shape=config.kl_weight * kl_loss(shape),
        kl_motion=config.kl_weight * kl_loss(motion),
    )


def reconstruction_loss(
    network: OccupancyFlow, codes: FlowCodes, samples: OccupancySamples, at_first_frame: bool
) -> Tensor:
    """Mean binary cross entropy of the occupancy; samples of the first frame are not transported."""
    times = None if at_first_frame else samples.times
    logits = network.decode(codes, samples.queries, times)
    return binary_cross_entropy_with_logits(logits, samples.occupancy)


def correspondence_loss(
    network: OccupancyFlow, codes: FlowCodes, trajectories: Tensor, backward: bool
) -> Tensor:
    """Mean distance between predicted and true positions of tracked points.

    Args:
        network: whose velocity field is trained.
        codes: of B sequences.
        trajectories: (B, L, M, 3) at L equally spaced times from 0 to 1.
        backward: add the same from the last frame back to the first.
    """
    times = torch.linspace(0, 1, trajectories.shape[1], device=trajectories.device)
    if not backward:
        predicted = network.transport(codes, trajectories[:, 0], times[1:])
        return mean_distance(predicted, trajectories[:, 1:])
    ahead = network.transport(codes, trajectories[:, 0], times)
    behind = network.transport(codes, trajectories[:, -1], times, start=1.0)
    return mean_distance(ahead, trajectories) + mean_distance(behind, trajectories)


def mean_distance(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean Euclidean distance between (..., 3) positions."""
    distances: Tensor = torch.linalg.vector_norm(predicted - true, dim=-1)
    return distances.mean()


def kl_loss(posterior: LatentGaussian) -> Tensor:
    """Mean divergence from N(0, 1) over batch and coordinates; 0 for codes of no length."""
    if posterior.mean.shape[-1] == 0:
        return posterior.mean.new_zeros(())
    return posterior.kl_to_prior().mean()
