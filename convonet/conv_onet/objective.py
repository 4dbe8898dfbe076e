"""What networks of crops are trained for: occupancy in boxes of rooms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from convonet.conv_onet.coordinates import Projection
from convonet.conv_onet.patch_encoder import CropInputs
from convonet.shape_training import ShapeBatch, ShapeObjective


@dataclass(frozen=True)
class BoxObjective(ShapeObjective):
    """The objective of shapes, for a cloud of which the network sees a box.

    Attributes:
        resolution: cells along each side of the boxes.
        projections: where features live.
    """

    resolution: int = 1
    projections: tuple[Projection, ...] = ("grid",)

    def load(self, arrays: Any, device: torch.device) -> ShapeBatch:
        """See `ShapeBatch`; the points' cells are found on the device."""
        batch = ShapeBatch.from_arrays(arrays, device)
        assert batch.lower is not None and batch.upper is not None
        boxes = CropInputs.in_boxes(batch.inputs, batch.lower, batch.upper, self.resolution, self.projections)
        return replace(batch, inputs=boxes)
