"""The scene's one field from its crops: a partition of unity over the tiles.

`value(p) = sum_c w_c(p) * value_c(p)`, where `w_c` is the product over the axes of a smooth ramp that rises
from 0 to 1 across the blending band around each of the tile's faces. The ramps of two neighbors add up
to 1, so the weights do; at the scene's outer faces there is no neighbor and no ramp.

The sum runs in ascending order of the tiles in float64, elementwise: whoever reads a lattice point gets
the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from convonet.surface.mise import SampledField
from pipeline.reconstruction.plan import ScenePlan

OUTSIDE = -4.0  # value of crops without points and beyond the scene: certainly free


def axis_ramp(coordinates: NDArray[np.int64], face: int, band: int) -> NDArray[np.float64]:
    """Weight of the side above `face`: 0 at `face - band`, 1 at `face + band`, smoothstep between.

    Computed so that the ramp and its complement add up to exactly 1. Without a band the side above owns the face.
    """
    if not band:
        return (coordinates >= face).astype(np.float64)
    t = np.clip((coordinates - (face - band)) / (2.0 * band), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def axis_weight(
    coordinates: NDArray[np.int64], plan: ScenePlan, tile: int, axis: int, steps: int
) -> NDArray[np.float64]:
    """Weight of a tile along one axis, at coordinates of which a voxel has so many steps."""
    place, side, band = plan.position(tile)[axis], plan.tile_voxels[axis] * steps, plan.blend_voxels * steps
    weight = np.ones(len(coordinates))
    if place > 0:
        weight = weight * axis_ramp(coordinates, place * side, band)
    if place < plan.grid[axis] - 1:
        weight = weight * (1.0 - axis_ramp(coordinates, (place + 1) * side, band))
    return weight


def tile_weight(points: NDArray[np.int64], plan: ScenePlan, tile: int) -> NDArray[np.float64]:
    """Weight (N,) of a tile's crop at lattice points (N, 3)."""
    x, y, z = (axis_weight(points[:, axis], plan, tile, axis, plan.cells_per_voxel) for axis in range(3))
    return np.asarray(x * y * z)


def blended_values(
    points: NDArray[np.int64], plan: ScenePlan, tiles: list[int], fields: Mapping[int, SampledField]
) -> NDArray[np.float64]:
    """The scene's field at lattice points.

    Args:
        points: (N, 3) int64.
        plan: the scene's plan.
        tiles: every tile whose weight may differ from 0 at a point, ascending.
        fields: the crops' fields; a tile that is absent has no points and counts as free space.

    Returns:
        (N,) float64; points on the scene's outer faces or beyond are outside.
    """
    values = np.zeros(len(points))
    for tile in tiles:
        weight = tile_weight(points, plan, tile)
        used = np.flatnonzero(weight)
        if not len(used):
            continue
        if tile in fields:
            sampled = fields[tile].value_at(points[used]).astype(np.float64)
        else:
            sampled = np.full(len(used), OUTSIDE)
        values[used] += weight[used] * sampled
    limits = np.asarray(plan.scene_cells)
    values[((points <= 0) | (points >= limits)).any(axis=1)] = OUTSIDE
    return values
