"""Mean and maximum of point features over the cells that hold points, in plain torch or torch-scatter.

Both backends give the same values. Plain torch works on the occupied cells alone and is the faster one on a
CPU; torch-scatter is used when it is asked for, and needs the optional extra `scatter`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from convonet.errors import NetworkError
from convonet.layers.pooling import OccupiedVoxels

Backend = Literal["torch", "torch_scatter"]
Pooling = Literal["max", "mean"]


def occupied_cells(flat_index: Tensor) -> OccupiedVoxels:
    """Find the occupied cells of a batch, once for all the reductions over them.

    Args:
        flat_index: (N,) int64 cell of each point among the cells of all items.
    """
    occupied, cell_of_point, counts = torch.unique(flat_index, return_inverse=True, return_counts=True)
    return OccupiedVoxels(occupied, cell_of_point, counts.float())


def cell_mean(features: Tensor, cells: OccupiedVoxels, backend: Backend = "torch") -> Tensor:
    """Mean of (N, C) point features over each of V occupied cells: (V, C).

    Raises:
        NetworkError: if torch-scatter is asked for and is not installed.
    """
    if backend == "torch_scatter":
        return _with_torch_scatter(features, cells, "mean")
    return cells.mean(features)


def cell_max(features: Tensor, cells: OccupiedVoxels, backend: Backend = "torch") -> Tensor:
    """Maximum of (N, C) point features over each of V occupied cells: (V, C).

    The backends differ in one thing: where several points of a cell hold the maximum, plain torch divides
    the gradient among them and torch-scatter gives all of it to one.

    Raises:
        NetworkError: if torch-scatter is asked for and is not installed.
    """
    if backend == "torch_scatter":
        return _with_torch_scatter(features, cells, "max")
    return cells.max(features)


def _with_torch_scatter(features: Tensor, cells: OccupiedVoxels, reduction: str) -> Tensor:
    pooled: Tensor = _torch_scatter().scatter(
        features, cells.voxel_of_point, dim=0, dim_size=len(cells.flat_index), reduce=reduction
    )
    return pooled


def _torch_scatter() -> Any:
    try:
        import torch_scatter
    except ImportError as error:
        raise NetworkError(
            "torch-scatter is not installed: install the extra `scatter`, or use the backend 'torch'"
        ) from error
    return torch_scatter
