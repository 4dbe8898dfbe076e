"""A batch of training crops, whatever made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.batches.seen_labels import SHEET_VOXELS


@dataclass(frozen=True)
class TrainingCrop:
    """One crop, in its voxel units.

    Attributes:
        points: (N, 3) float32; directions: (N, 3) float32 unit vectors to the free side, zero where unknown.
        queries: (Q, 3) float32; distances: (Q,) float32 signed, voxels, negative inside.
        sheet: voxels after which the solid behind a surface seen from one side ends.
    """

    points: NDArray[np.float32]
    directions: NDArray[np.float32]
    queries: NDArray[np.float32]
    distances: NDArray[np.float32]
    sheet: float = SHEET_VOXELS


@dataclass(frozen=True)
class TrainingCrops:
    """A batch of crops of one grid, all points behind one another and all queries; see `TrainingCrop`.

    Attributes:
        point_batch, query_batch: (N,) and (Q,) int64 crop of each point and of each query.
        sheets: (N,) float32, of each point.
        batch_size: number of crops; grid_shape: voxels along z, y, x.
    """

    points: NDArray[np.float32]
    point_batch: NDArray[np.int64]
    directions: NDArray[np.float32]
    sheets: NDArray[np.float32]
    queries: NDArray[np.float32]
    query_batch: NDArray[np.int64]
    distances: NDArray[np.float32]
    batch_size: int
    grid_shape: tuple[int, int, int]

    @classmethod
    def of_crops(cls, crops: Sequence[TrainingCrop], grid: int) -> TrainingCrops:
        """Join crops of one cubic grid."""
        numbers, lengths = np.arange(len(crops)), [len(crop.points) for crop in crops]
        return cls(
            points=np.concatenate([crop.points for crop in crops]),
            point_batch=np.repeat(numbers, lengths),
            directions=np.concatenate([crop.directions for crop in crops]),
            sheets=np.repeat(np.array([crop.sheet for crop in crops], np.float32), lengths),
            queries=np.concatenate([crop.queries for crop in crops]),
            query_batch=np.repeat(numbers, [len(crop.queries) for crop in crops]),
            distances=np.concatenate([crop.distances for crop in crops]),
            batch_size=len(crops),
            grid_shape=(grid, grid, grid),
        )
