"""The plain-torch training step and loop. Nothing here knows of Ray: `pipeline.train` wraps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convonet.layers.point_encoder import PointHints
from convonet.precision import network_precision
from foundation.atomic_file import appearing
from foundation.errors import SettingError
from foundation.settings import check_at_least

LOGITS_PER_VOXEL = 4.0


B = TypeVar("B", bound="ArrayBatch")


class ArrayBatch:
    """A batch on a device: a dataclass of tensors, and of what is no array."""

    @classmethod
    def from_arrays(cls: type[B], arrays: Any, device: torch.device) -> B:
        """A batch from an object that holds its fields under the same names, as numpy arrays where they are tensors."""
        known = {name: getattr(arrays, name) for name in cls.__dataclass_fields__}  # type: ignore[attr-defined]
        return cls(**{name: _on_device(value, device) for name, value in known.items()})


def _on_device(value: Any, device: torch.device) -> Any:
    return torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value


class BatchSource(Protocol):
    """Where batches come from: batch `step` of process `rank` must depend on nothing else."""

    def batch(self, step: int, batch_size: int, rank: int = 0) -> Any:
        """Draw one batch of arrays, with the fields of the batch that the objective's `load` makes."""
        ...


class Objective(ABC):
    """What a network is trained for: its batches, its loss and its figure of merit.

    Attributes:
        batch_type: of its batches.
        may_idle: whether a batch may leave parameters without a gradient, which a distributed wrapper is to know.
    """

    batch_type: ClassVar[type[ArrayBatch]]
    may_idle: ClassVar[bool] = False

    def load(self, arrays: Any, device: torch.device) -> Any:
        """Move a source's arrays to a device: the batch that the other methods take."""
        return self.batch_type.from_arrays(arrays, device)

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """What a step minimizes, and figures for the log."""

    @abstractmethod
    def validate(self, network: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """One figure over all batches, such as `validation_iou`, of a network in evaluation mode."""


@dataclass(frozen=True)
class CropBatch(ArrayBatch):
    """A batch of training crops on a device.

    Attributes:
        points: (N, 3) float32 in voxel units of each crop; point_batch: (N,) int64 its crop.
        directions: (N, 3) float32 unit vectors to the free side, zero where unknown.
        sheets: (N,) float32 voxels after which the solid behind a surface seen from one side ends.
        queries: (Q, 3) float32; query_batch: (Q,) int64.
        distances: (Q,) float32 signed distance to the surface in voxels, negative inside.
        batch_size: number of crops; grid_shape: voxels along z, y, x.
    """

    points: Tensor
    point_batch: Tensor
    directions: Tensor
    sheets: Tensor
    queries: Tensor
    query_batch: Tensor
    distances: Tensor
    batch_size: int
    grid_shape: tuple[int, int, int]

    @property
    def occupancy(self) -> Tensor:
        """(Q,) float32 of 0 and 1."""
        return (self.distances < 0).to(self.distances.dtype)


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps of the whole schedule.
        batch_size: crops, shapes or sequences in one step of one process.
        learning_rate: peak; warmed up linearly, then lowered along half a cosine to 1%.
        warmup_steps: steps of the warm-up.
        weight_decay: of AdamW.
        averaging: decay of the running average of the weights, which is what gets saved as the model.
        gradient_clip: largest norm of the gradient.
        seed: of the initial weights and the batches.
    """

    steps: int = 10_000
    batch_size: int = 2
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    averaging: float = 0.998
    gradient_clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, batch_size=self.batch_size)
        check_at_least(0, learning_rate=self.learning_rate, seed=self.seed)
        if not 0 <= self.averaging < 1:
            raise SettingError("averaging must lie in [0, 1)")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: a function of the step alone, so resuming is exact."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(progress, 1.0))))


@dataclass
class TrainingState:
    """Everything that a checkpoint holds: weights, their running average, the optimizer and the step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: dict[str, Tensor]
    step: int = 0

    @classmethod
    def fresh(cls, network: nn.Module, config: TrainingConfig) -> TrainingState:
        """A state before the first step."""
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        averaged = {name: value.detach().clone() for name, value in network.state_dict().items()}
        return cls(network, optimizer, averaged)

    def save(self, path: Path) -> None:
        """Write a checkpoint that appears whole or not at all."""
        stored = {
            "network": self.network.state_dict(),
            "optimiser": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
        }
        with appearing(path) as partial:
            torch.save(stored, partial)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; only tensors and numbers are unpickled."""
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(stored["network"])
        self.optimizer.load_state_dict(stored["optimiser"])
        for name, value in stored["averaged"].items():
            self.averaged[name].copy_(value)
        self.step = int(stored["step"])


def batch_logits(network: nn.Module, batch: CropBatch, use_bf16: bool = True) -> Tensor:
    """Occupancy logits (Q,) float32 of a batch's queries; `network` is called whole, so DDP may wrap it."""
    with network_precision(batch.points.device, use_bf16):
        logits: Tensor = network(
            batch.points,
            batch.point_batch,
            batch.batch_size,
            batch.grid_shape,
            batch.queries,
            batch.query_batch,
            PointHints(batch.directions, batch.sheets),
        )
    return logits.float()


def occupancy_iou(logits: Tensor, occupancy: Tensor, threshold: float = 0.5) -> float:
    """Intersection over union of predicted and true occupancy over the given queries."""
    predicted = torch.sigmoid(logits) > threshold
    actual = occupancy > 0.5
    union = (predicted | actual).sum().item()
    return float((predicted & actual).sum().item() / union) if union else 1.0


def validation_iou(batches: Iterable[tuple[Tensor, Tensor]], threshold: float = 0.5) -> dict[str, float]:
    """The IoU over all batches of logits and occupancy as an objective's figure."""
    logits, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return {"validation_iou": occupancy_iou(logits, labels, threshold)}


@dataclass(frozen=True)
class CropObjective(Objective):
    """Truncated signed distance and occupancy of crops, in bfloat16 where the device gains from it.

    The logit is trained as the distance times a constant, so that the field is linear across a surface and
    interpolation keeps planes plane at any angle; cross-entropy decides what is far from a surface.

    Attributes:
        use_bf16: where the device has it.
        logits_per_voxel: slope of the logit across a surface.
        truncation: voxels beyond which the distance counts as this much.
        entropy_share: weight of the cross-entropy beside the distance's error in voxels.
    """

    batch_type = CropBatch

    use_bf16: bool = True
    logits_per_voxel: float = LOGITS_PER_VOXEL
    truncation: float = 1.5
    entropy_share: float = 0.25

    def loss(self, network: nn.Module, batch: CropBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean error of the truncated distance, and cross-entropy."""
        logits = batch_logits(network, batch, self.use_bf16)
        occupancy = batch.occupancy
        limit = self.truncation
        predicted = (-logits / self.logits_per_voxel).clamp(-limit, limit)
        error = (predicted - batch.distances.clamp(-limit, limit)).abs().mean()
        loss = error + self.entropy_share * F.binary_cross_entropy_with_logits(logits, occupancy)
        figures = {"iou": occupancy_iou(logits.detach(), occupancy), "distance_error": error.item()}
        return loss, figures

    def validate(self, network: nn.Module, batches: Iterable[CropBatch]) -> dict[str, float]:
        """IoU over the queries of all batches."""
        return validation_iou((batch_logits(network, batch), batch.occupancy) for batch in batches)


CROPS = CropObjective()


class Criterion(nn.Module):
    """A network behind its objective: one `forward` from batch to loss, as a distributed wrapper needs it."""

    def __init__(self, network: nn.Module, objective: Objective = CROPS) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.loss`."""
        return self.objective.loss(self.network, batch)


def train_step(
    criterion: nn.Module, state: TrainingState, batch: Any, config: TrainingConfig
) -> dict[str, float]:
    """One optimizer step on one batch; `criterion` is a `Criterion` or its distributed wrapper."""
    criterion.train()
    for group in state.optimizer.param_groups:
        group["lr"] = config.rate_at(state.step)
    loss, figures = criterion(batch)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(criterion.parameters(), config.gradient_clip)
    state.optimizer.step()
    decay = min(config.averaging, (state.step + 1) / (state.step + 10))
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            if value.is_floating_point():
                state.averaged[name].lerp_(value, 1 - decay)
            else:  # a counter of batch normalization
                state.averaged[name].copy_(value)
    state.step += 1
    return {
        "loss": loss.item(),
        **figures,
        "gradient_norm": float(norm),
        "learning_rate": config.rate_at(state.step - 1),
    }


@dataclass
class Fit:
    """A training run: where batches come from, and what happens between steps."""

    source: BatchSource
    config: TrainingConfig
    device: torch.device
    rank: int = 0
    on_step: Callable[[TrainingState, dict[str, float]], None] = field(default=lambda state, metrics: None)
    objective: Objective = CROPS

    def run(self, state: TrainingState, wrapped: nn.Module | None = None) -> None:
        """Train from the state's step to the last step of the schedule.

        Args:
            state: with the network.
            wrapped: the distributed wrapper of its `Criterion`, if there is one.
        """
        criterion = wrapped or Criterion(state.network, self.objective)
        while state.step < self.config.steps:
            arrays = self.source.batch(state.step, self.config.batch_size, self.rank)
            batch = self.objective.load(arrays, self.device)
            metrics = train_step(criterion, state, batch, self.config)
            self.on_step(state, metrics)
