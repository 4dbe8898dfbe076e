"""Mean and maximum of point features over the cells that hold points, in plain torch or torch-scatter.

Both backends give the same values. Plain torch works on the occupied cells alone and is the faster one on a
CPU; torch-scatter is used when it is asked for, and needs the optional extra `scatter`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from convonet.errors import NetworkError
from convonet.layers.pooling import OccupiedVoxels

Backend = Literal["torch", "torch_scatter"]
Pooling = Literal["max", "mean"]


def pool_cells(
    features: Tensor, cells: OccupiedVoxels, pooling: Pooling, backend: Backend = "torch"
) -> Tensor:
    """Mean or maximum of (N, C) point features over each of V occupied cells: (V, C).

    The backends differ in one thing: where several points of a cell hold the maximum, plain torch divides
    the gradient among them and torch-scatter gives all of it to one.

    Raises:
        NetworkError: if torch-scatter is asked for and is not installed.
    """
    if backend == "torch":
        return cells.max(features) if pooling == "max" else cells.mean(features)
    try:
        import torch_scatter
    except ImportError as error:
        raise NetworkError(
            "torch-scatter is not installed: install the extra `scatter`, or use the backend 'torch'"
        ) from error
    pooled: Tensor = torch_scatter.scatter(
        features, cells.voxel_of_point, dim=0, dim_size=len(cells.flat_index), reduce=pooling
    )
    return pooled
