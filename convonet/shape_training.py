"""The objective of single shapes: occupancy at queries of what the network is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from convonet.precision import network_precision
from convonet.training import ArrayBatch, Objective, occupancy_iou, validation_iou


@dataclass(frozen=True)
class ShapeBatch(ArrayBatch):
    """A batch of shapes on a device.

    Attributes:
        inputs: what the network's `encode` takes.
        queries: (B, Q, 3) float32; occupancy: (B, Q) float32 of 0 and 1.
        lower, upper: (B, 3) float32 corners of the boxes of crops; None for whole shapes.
        seed: of what the loss draws.
    """

    inputs: Any
    queries: Tensor
    occupancy: Tensor
    lower: Tensor | None
    upper: Tensor | None
    seed: int


@dataclass(frozen=True)
class ShapeObjective(Objective):
    """Mean binary cross-entropy of a query.

    Attributes:
        threshold: probability that counts as occupied.
        use_bf16: where the device gains from it.
    """

    batch_type = ShapeBatch

    threshold: float
    use_bf16: bool = False

    def loss(self, network: nn.Module, batch: ShapeBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy, and the IoU over the batch's queries."""
        logits = self.logits(network, batch)
        loss = F.binary_cross_entropy_with_logits(logits, batch.occupancy)
        return loss, {"iou": occupancy_iou(logits.detach(), batch.occupancy, self.threshold)}

    def validate(self, network: nn.Module, batches: Iterable[ShapeBatch]) -> dict[str, float]:
        """IoU over the queries of all batches."""
        return validation_iou(
            ((self.logits(network, batch), batch.occupancy) for batch in batches), self.threshold
        )

    def logits(self, network: nn.Module, batch: ShapeBatch) -> Tensor:
        """(B, Q) float32."""
        with network_precision(batch.queries.device, self.use_bf16):
            logits: Tensor = network(batch.inputs, batch.queries)
        return logits.float()
