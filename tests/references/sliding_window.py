"""The sliding window of Peng et al. 2020 once more, in a straight line: one box after the other, no blending.

Boxes begin at the lowest corner of the scan's bounding box, less 0.01 of the unit cube; each sees the points of a
larger box about its middle. Positions are float64, the network's arithmetic float32, on entries with the original's
names.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.convonet.conv_onet.original_forward import decode, pooled_point_features, scatter_average, unet3d

MARGIN = 2  # voxels: 0.01 at the published voxel of 0.005


def crop_side(query_voxels: int, levels: int) -> int:
    """Voxels along what a box sees: the nominal receptive field around it, rounded up to what the U-Net halves."""
    base, wanted = 2 ** (levels - 1), query_voxels + 2 ** (levels + 2) - 1
    return int(np.ceil(wanted / base)) * base


def trilinear(volume: Tensor, where: NDArray[np.float64]) -> Tensor:
    """(C, R, R, R) indexed z, y, x at (Q, 3) in [0, 1]; 0 and 1 are the centers of the outermost cells."""
    cells = np.clip(where, 0, 1) * (volume.shape[-1] - 1)
    low = np.minimum(np.floor(cells), volume.shape[-1] - 2).astype(int)
    up = cells - low
    result = torch.zeros(len(where), len(volume), dtype=torch.float64)
    for corner in product((0, 1), repeat=3):
        weight = np.prod([up[:, a] if c else 1 - up[:, a] for a, c in enumerate(corner)], axis=0)
        x, y, z = (low + np.array(corner)).T
        result += torch.from_numpy(weight)[:, None] * volume[:, z, y, x].T.double()
    return result.float()


def window_logits(
    state: dict[str, Tensor],
    scan: NDArray[np.float64],
    voxel: float,
    query_voxels: int,
    levels: int,
    cells_per_voxel: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest corner (3,) of the boxes, and logits (X, Y, Z) of the lattice; each point's by the box that holds it.

    The lattice points on the uppermost faces belong to no box and are NaN.
    """
    lowest = scan.min(axis=0) - MARGIN * voxel
    side = query_voxels * voxel
    counts = np.ceil((scan.max(axis=0) + MARGIN * voxel - lowest) / side).astype(int)
    cells = query_voxels * cells_per_voxel
    logits = np.full(tuple(counts * cells + 1), np.nan)
    resolution = crop_side(query_voxels, levels)
    steps = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for box in product(*(range(count) for count in counts)):
        lower = lowest + np.array(box) * side
        corner = lower + side / 2 - resolution * voxel / 2
        seen = scan[((scan >= corner) & (scan < corner + resolution * voxel)).all(axis=1)]
        where = np.floor((seen - corner) / voxel).astype(int)
        of_points = [(z, y, x) for x, y, z in where.tolist()]
        local = torch.from_numpy(np.mod(seen, voxel) / voxel).float()
        features = pooled_point_features(local, {"grid": of_points}, state)
        volume = unet3d(scatter_average(features, of_points, resolution), state)
        queries = lower + steps * (voxel / cells_per_voxel)
        sampled = trilinear(volume, (queries - corner) / (resolution * voxel))
        found = decode(torch.from_numpy(np.mod(queries, voxel) / voxel).float(), sampled, state)
        block = tuple(slice(at * cells, (at + 1) * cells) for at in box)
        logits[block] = found.double().numpy().reshape(cells, cells, cells)
    return lowest, logits
