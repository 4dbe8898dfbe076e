"""Positions to cells: the projections onto planes and volume, as Peng et al. 2020 normalize them.

A *projection* names where features live: the planes "xz", "xy" and "yz", or the volume "grid". A plane's
features are (B, C, R, R) tensors whose last axis is the first coordinate of its name; the volume's are
(B, C, R, R, R), indexed z, y, x.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Projection = Literal["xz", "xy", "yz", "grid"]
PositionEncoding = Literal["linear", "sin_cos"]

PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
AXES: dict[Projection, tuple[int, ...]] = {"xz": (0, 2), "xy": (0, 1), "yz": (1, 2), "grid": (0, 1, 2)}

# The unit cube with its padding is widened by a margin, so that its border falls inside the last cell.
# Trained weights depend on both values and on their difference.
PLANE_MARGIN = 1e-5
VOLUME_MARGIN = 1e-3

FREQUENCIES = 10


def normalize_coordinate(points: Tensor, projection: Projection, padding: float) -> Tensor:
    """Project object-level positions and scale them to [0, 1).

    Args:
        points: (B, N, 3) x, y, z in the unit cube centered at 0.
        projection: the plane, or "grid" to keep all three axes.
        padding: width added to the unit cube, in units of its side.

    Returns:
        (B, N, 2) or (B, N, 3); positions outside the padded cube are moved to its border.
    """
    margin = VOLUME_MARGIN if projection == "grid" else PLANE_MARGIN
    normalized = points[..., AXES[projection]] / (1 + padding + margin) + 0.5
    inside = torch.where(normalized >= 1, 1 - margin, normalized)
    return torch.where(inside < 0, 0.0, inside)


def normalize_in_bounds(points: Tensor, lower: Tensor, upper: Tensor, projection: Projection) -> Tensor:
    """Project crop positions and scale the crop's box to [0, 1], without clamping.

    Args:
        points: (B, N, 3) x, y, z, any unit.
        lower, upper: (B, 3) corners of each crop's box in the same unit.
        projection: the plane or "grid".

    Returns:
        (B, N, 2) or (B, N, 3); outside [0, 1) for positions outside the box.
    """
    scaled = (points - lower[:, None]) / (upper - lower)[:, None]
    return scaled[..., AXES[projection]]


def cell_index(normalized: Tensor, resolution: int) -> Tensor:
    """The cell of each position.

    Args:
        normalized: (B, N, 2) or (B, N, 3) in [0, 1).
        resolution: cells along each axis.

    Returns:
        (B, N) int64; the first axis varies fastest, so that reshaping gives the axes in reverse order.
    """
    cells = (normalized * resolution).long()
    index = cells[..., -1]
    for axis in reversed(range(normalized.shape[-1] - 1)):
        index = cells[..., axis] + resolution * index
    return index


def flat_cell_index(index: Tensor, resolution: int, projection: Projection) -> Tensor:
    """Number (B, N) cells of each item through the whole batch: (B * N,), item after item."""
    cells_per_item: int = resolution ** len(AXES[projection])
    offsets = cells_per_item * torch.arange(len(index), device=index.device)
    return (index + offsets[:, None]).flatten()


def local_coordinates(positions: Tensor, unit_size: float, encoding: PositionEncoding) -> Tensor:
    """Position inside the voxel that holds it, in [0, 1), for crops of any scene.

    Args:
        positions: (B, N, 3), any unit.
        unit_size: side of a voxel in the same unit.
        encoding: "linear" leaves the three values; "sin_cos" gives sine and cosine at 10 octaves.

    Returns:
        (B, N, 3) or (B, N, 60).
    """
    inside = torch.remainder(positions, unit_size) / unit_size
    if encoding == "linear":
        return inside
    signed = 2 * inside - 1
    waves = [
        wave(2.0**octave * math.pi * signed)
        for octave in range(FREQUENCIES)
        for wave in (torch.sin, torch.cos)
    ]
    return torch.cat(waves, dim=-1)


def position_size(encoding: PositionEncoding) -> int:
    """Width of what `local_coordinates` returns."""
    return 3 if encoding == "linear" else 3 * 2 * FREQUENCIES
