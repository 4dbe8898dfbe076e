"""What a coarser level of the pyramid says: dense tiles of one value a voxel corner, blended, read at any place."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.reconstruction.blending import OUTSIDE, axis_weight
from pipeline.reconstruction.field_store import check_finite
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.store import RunStore

Floats = NDArray[np.float32]

PROBE_VOXELS = 0.75  # coarse voxels from a point at which its two sides must differ for a direction to count
SURE_LOGIT = 1.0  # by which each side must be what it is
BURIED_LOGIT = 2.0  # half a voxel deep
MOST_BURIED = 0.01  # share of a level's points


def level_file(level: int, tile: int) -> str:
    """Name of a coarse tile's values."""
    return f"levels/{level}/tile-{tile:08d}.parquet"


def grid_box(plan: ScenePlan, tile: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last voxel corner (3,) of the values that a tile keeps: the tile and its blending band."""
    sides = np.asarray(plan.tile_voxels)
    low = np.asarray(plan.position(tile)) * sides
    return low - plan.blend_voxels, low + sides + plan.blend_voxels


@dataclass(frozen=True)
class LevelFacts:
    """What a coarse tile tells beside its values.

    Attributes:
        below: tiles of the next finer level into which something solid reaches.
        points: of the level that the tile owns.
        buried: of these, how many lie inside its solid: on no surface of it.
    """

    below: list[int]
    points: int
    buried: int


def is_believable(facts: Iterable[LevelFacts]) -> bool:
    """Whether a level's solids have the scan's points on their surface, so that it may tell which side is free.

    From far enough a room scanned from inside looks like a solid scanned from outside. What gives it away are
    points inside: inner walls, furniture.
    """
    counts = [(fact.points, fact.buried) for fact in facts]
    return sum(buried for _, buried in counts) <= MOST_BURIED * sum(points for points, _ in counts)


def buried_points(
    plan: ScenePlan, tile: int, values: Floats, positions: NDArray[np.float64]
) -> tuple[int, int]:
    """How many points a tile owns, and how many of them lie in its solid by more than `BURIED_LOGIT`.

    Args:
        positions: (N, 3) of the crop's points, in voxels of the scene.
    """
    low = np.asarray(plan.position(tile)) * np.asarray(plan.tile_voxels)
    own = positions[((positions >= low) & (positions < low + plan.tile_voxels)).all(axis=1)]
    inside = sample_grid(values, own - grid_box(plan, tile)[0]) > BURIED_LOGIT
    return len(own), int(inside.sum())


def write_level_tile(
    store: RunStore, plan: ScenePlan, tile: int, values: Floats | None, found: LevelFacts, seconds: float
) -> None:
    """Write a tile's values (X, Y, Z) at the corners of `grid_box`; None where all is free."""
    if values is not None:
        check_finite(values, f"level {plan.level}, tile {tile}")
    flat = np.zeros(0, np.float16) if values is None else values.astype(np.float16).ravel()
    facts = {"is_empty": values is None, "seconds": seconds, **asdict(found)}
    store.write_table(level_file(plan.level, tile), [{"value": flat}], facts)


def read_level_facts(store: RunStore, level: int, tile: int) -> LevelFacts:
    """What a finished tile tells beside its values."""
    facts = store.read_facts(level_file(level, tile))
    return LevelFacts(facts["below"], facts["points"], facts["buried"])


@dataclass(frozen=True)
class CoarseBlock:
    """A box of a coarse level's blended field.

    Attributes:
        values: (X, Y, Z) float32 logits at voxel corners.
        low: (3,) the first corner, in voxels of that level.
        is_believable: whether this level may tell the finer one which side of its points is free.
        scale, shift: a place at `u` voxels of the finer level is at `u * scale + shift` voxels of this one.
    """

    values: Floats
    low: NDArray[np.int64]
    scale: float
    shift: NDArray[np.float64]
    is_believable: bool = True

    def at(self, positions: NDArray[np.float64]) -> Floats:
        """Values (N,) at positions (N, 3) in voxels of the finer level; beyond the block its border's."""
        return sample_grid(self.values, positions * self.scale + (self.shift - self.low))

    def holds_solid(self, low: NDArray[np.int64], high: NDArray[np.int64], cells_per_voxel: int) -> bool:
        """Whether any value is solid in the closed box between two lattice points of the finer level."""
        first = np.floor(low / cells_per_voxel * self.scale + self.shift).astype(np.int64) - self.low
        last = np.ceil(high / cells_per_voxel * self.scale + self.shift).astype(np.int64) - self.low
        box = tuple(slice(max(int(a), 0), int(b) + 1) for a, b in zip(first, last, strict=True))
        return bool((self.values[box] > 0).any())

    def directions(self, positions: NDArray[np.float64]) -> Floats:
        """Unit vectors (N, 3) from points (N, 3) to their free side, zero where this level is not sure of it.

        A level that resolves a surface has solid on one side of it and free space on the other; walls thinner than
        its voxels, and surfaces of which it cannot tell the sides, fail one of the two probes.
        """
        if not self.is_believable:
            return np.zeros((len(positions), 3), np.float32)
        local = positions * self.scale + (self.shift - self.low)
        slope = np.empty((len(local), 3), np.float32)
        for axis in range(3):
            step = np.zeros(3)
            step[axis] = 0.5
            slope[:, axis] = sample_grid(self.values, local - step) - sample_grid(self.values, local + step)
        length = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
        directions = slope / length
        free = sample_grid(self.values, local + PROBE_VOXELS * directions) < -SURE_LOGIT
        solid = sample_grid(self.values, local - PROBE_VOXELS * directions) > SURE_LOGIT
        return np.where((free & solid)[:, None], directions, np.float32(0)).astype(np.float32)


def sample_grid(values: Floats, positions: NDArray[np.float64]) -> Floats:
    """Trilinear interpolation of (X, Y, Z) values at positions (N, 3) in grid steps, clamped to the grid."""
    limits = np.asarray(values.shape) - 1
    place = np.clip(positions, 0, limits)
    low = np.minimum(place.astype(np.int64), np.maximum(limits - 1, 0))
    upper = (place - low).astype(np.float32)
    strides = np.array([values.shape[1] * values.shape[2], values.shape[2], 1]) * (limits > 0)
    first = low @ np.array([values.shape[1] * values.shape[2], values.shape[2], 1])
    flat = values.ravel()
    result = np.zeros(len(positions), np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.ones(len(positions), np.float32)
        for axis, side in enumerate(corner):
            weight *= upper[:, axis] if side else 1 - upper[:, axis]
        result += weight * flat[first + int(np.asarray(corner) @ strides)]
    return result


def read_block(
    store: RunStore,
    coarse: ScenePlan,
    finished: Set[int],
    fine: ScenePlan,
    tile: int,
    is_believable: bool = True,
) -> CoarseBlock:
    """The coarse level's field over the crop of a finer level's tile.

    Args:
        finished: the coarse level's tiles that have values; all others are free.
        is_believable: see `CoarseBlock`.

    Raises:
        RunFileError: if a file of the level is missing or damaged.
    """
    scale, shift = _placement(fine, coarse)
    crop_low = np.asarray(fine.crop_low(tile))
    crop_high = crop_low + np.asarray(fine.crop_shape[::-1])
    low = np.floor(crop_low * scale + shift).astype(np.int64) - 2
    high = np.ceil(crop_high * scale + shift).astype(np.int64) + 2
    return CoarseBlock(_blended_box(store, coarse, finished, low, high), low, scale, shift, is_believable)


def _placement(fine: ScenePlan, coarse: ScenePlan) -> tuple[float, NDArray[np.float64]]:
    """Scale and shift from voxels of the finer level to those of the coarser one; see `CoarseBlock`."""
    scale = fine.voxel_size / coarse.voxel_size
    return scale, np.asarray(fine.start) * scale - np.asarray(coarse.start)


def _blended_box(
    store: RunStore, plan: ScenePlan, finished: Set[int], low: NDArray[np.int64], high: NDArray[np.int64]
) -> Floats:
    """The level's field at the voxel corners of a closed box, (X, Y, Z): see `blending`, here axis by axis."""
    total = np.zeros(tuple(high - low + 1), np.float64)
    covered = np.zeros(total.shape, np.float64)
    for tile in plan.tiles_touching(low, high):
        if tile not in finished:
            continue
        with store.open_table(level_file(plan.level, tile)) as file:
            if file.facts["is_empty"]:
                continue
            flat = file.read()["value"]
        first, last = grid_box(plan, tile)
        values = flat.reshape(tuple(last - first + 1)).astype(np.float64)
        start, stop = np.maximum(first, low), np.minimum(last, high) + 1
        if (start >= stop).any():
            continue
        here = tuple(slice(a, b) for a, b in zip(start - first, stop - first, strict=True))
        there = tuple(slice(a, b) for a, b in zip(start - low, stop - low, strict=True))
        x, y, z = (
            axis_weight(np.arange(start[axis], stop[axis]), plan, tile, axis, steps=1) for axis in range(3)
        )
        weight = x[:, None, None] * y[:, None] * z
        total[there] += weight * values[here]
        covered[there] += weight
    return (total + (1 - covered) * OUTSIDE).astype(np.float32)


def tiles_below(fine: ScenePlan, coarse: ScenePlan, tile: int, values: Floats) -> list[int]:
    """Tiles of the next finer level that hold any of the coarse tile's solid, with one coarse voxel around it."""
    solid = np.argwhere(values > 0)
    if not len(solid):
        return []
    scale, shift = _placement(fine, coarse)
    corners = solid + grid_box(coarse, tile)[0]
    found: set[int] = set()
    for offset in np.ndindex(2, 2, 2):
        moved = (corners + (2 * np.asarray(offset) - 1) - shift) / scale
        places = np.unique(np.floor(moved / fine.tile_voxels).astype(np.int64), axis=0)
        found |= {number for place in places if (number := fine.number(tuple(place.tolist()))) is not None}
    return sorted(found)
