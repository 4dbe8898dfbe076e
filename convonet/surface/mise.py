"""Multiresolution IsoSurface Extraction without a dense grid (Mescheder et al. 2019, section 3.3).

A box of lattice cells is covered by coarse cells. A cell is refined where the surface may be, step by step
down to single lattice cells; everywhere else only the corners of coarse cells are ever evaluated. Values
are logits minus the threshold: inside is > 0.

What is kept: the evaluated points as one sorted key array with their values (this follows the surface), and
one byte for each cell of the last step before 1 (with steps 8, 4, 1: a 64th of the box's lattice points).
While refining, it is six bytes for each such cell, and points live in small cubes that need no search.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convonet.errors import FieldError
from convonet.surface.lattice import is_first, key_step, pack
from foundation.errors import SettingError

Integer = TypeVar("Integer", bound=np.integer[Any])
Field = Callable[[NDArray[np.int64]], NDArray[np.float32]]

_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)), dtype=np.int64)


@dataclass(frozen=True)
class MiseConfig:
    """The hierarchy of cells.

    Attributes:
        steps: sides of the cells of each level in lattice cells, coarse to fine; each divides the one
            before, the last is 1. Cells of the last level but one (the leaves) are evaluated densely.
    """

    steps: tuple[int, ...] = (8, 4, 1)

    def __post_init__(self) -> None:
        pairs = list(itertools.pairwise(self.steps))
        if len(self.steps) < 2 or self.steps[-1] != 1 or any(a <= b or a % b for a, b in pairs):
            raise SettingError(f"steps must divide one another down to 1, got {self.steps}")

    @property
    def leaf(self) -> int:
        """Side of a leaf cell in lattice cells."""
        return self.steps[-2]


@dataclass(frozen=True)
class SampledField:
    """What a refinement knows of a field in a box.

    Attributes:
        low, high: the box of lattice cells, half-open; its points are those of the closed box.
        config: the hierarchy.
        keys: (P,) int64 sorted keys of the evaluated points.
        values: (P,) float32.
        refined: for each level but the last, a dense boolean array [x, y, z] over the box's cells of it.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    config: MiseConfig
    keys: NDArray[np.int64]
    values: NDArray[np.float32]
    refined: list[NDArray[np.bool_]]

    def value_at(self, points: NDArray[np.int64]) -> NDArray[np.float32]:
        """Values (N,) at lattice points (N, 3) of the closed box.

        An evaluated point has its value. Any other point has the trilinear interpolation of the
        unrefined cell that owns it in the half-open sense (on the box's upper faces, the last cell), at
        that cell's own level: a rule of the point alone. The sign is right everywhere: an unrefined
        cell's corners share one sign, and so does every evaluated point of its closed box.
        """
        keys = pack(points)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = self.keys[place] == keys
        values = self.values[place].copy()
        missing = np.flatnonzero(~found)
        if len(missing):
            values[missing] = self._interpolate(points[missing])
        return values

    def _interpolate(self, points: NDArray[np.int64]) -> NDArray[np.float32]:
        owners = np.minimum(points, self.high - 1) - self.low
        result = np.empty(len(points), np.float32)
        rest = np.arange(len(points))
        for level, step in enumerate(self.config.steps[:-1]):
            cells = owners[rest] // step
            stops = ~self.refined[level][tuple(cells.T)]
            here, cells = rest[stops], cells[stops]
            fraction = (points[here] - self.low - cells * step) / step
            corner_keys = pack(cells * step + self.low)
            total = np.zeros(len(here))
            for corner in _CORNERS:
                weight = np.where(corner, fraction, 1 - fraction).prod(axis=1)
                x, y, z = (corner * step).tolist()
                total += weight * self._evaluated(corner_keys + key_step((x, y, z)))
            # Rounding a tiny inside value to 0 would make it outside.
            result[here] = np.where(total > 0, np.maximum(total, np.finfo(np.float32).tiny), total)
            rest = rest[~stops]
        assert not len(rest), "a point of a dense leaf was not evaluated"
        return result

    def _evaluated(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        assert np.array_equal(self.keys[place], keys), "a corner was not evaluated"
        return self.values[place]

    def leaf_origins(self) -> NDArray[np.int64]:
        """Lower corners (B, 3) of the leaves that are evaluated densely."""
        return np.argwhere(self.refined[-1]) * self.config.leaf + self.low

    def blocks(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Dense leaves: lower corners (B, 3) and values (B, n + 1, n + 1, n + 1) indexed x, y, z."""
        origins, side = self.leaf_origins(), self.config.leaf + 1
        offsets = np.array([key_step(step) for step in itertools.product(range(side), repeat=3)])
        keys = pack(origins)[:, None] + offsets
        return origins, self._evaluated(keys.ravel()).reshape(-1, side, side, side)


def refine(
    values_of: Field,
    box_low: NDArray[np.int64],
    box_high: NDArray[np.int64],
    seed_cells: NDArray[np.int64],
    config: MiseConfig | None = None,
    max_batch: int = 1 << 18,
) -> SampledField:
    """Sample a field where its surface is.

    A cell is refined if its corners disagree in sign; if it holds a seed, whatever its corners say; or if a
    point evaluated in its closed box has another sign than its corners, as happens when a sheet thinner
    than the cell leaves a refined neighbor. The last rule runs until nothing changes.

    Args:
        values_of: lattice points (N, 3) int64 to values (N,) float32, logits minus the threshold; asked
            for each point once.
        box_low, box_high: box of lattice cells, half-open, on multiples of `steps[0]`.
        seed_cells: (K, 3) int64 lattice cells inside the box that hold scan points.
        config: the hierarchy.
        max_batch: most points asked for at once.

    Raises:
        ValueError: if the box does not lie on multiples of `steps[0]`, or a seed lies outside.
    """
    config = config or MiseConfig()
    low, high = np.asarray(box_low, np.int64), np.asarray(box_high, np.int64)
    if (low % config.steps[0]).any() or (high % config.steps[0]).any() or (low >= high).any():
        raise ValueError(f"the box {low} to {high} must lie on multiples of {config.steps[0]}")
    seeds = np.asarray(seed_cells, np.int64).reshape(-1, 3)
    if len(seeds) and ((seeds < low).any() or (seeds >= high).any()):
        raise ValueError("a seed cell lies outside the box")
    return _Refinement(values_of, low, high, config, max_batch).run(seeds)


class _Level:
    """The cells of one level, and the points at the next level's step inside them.

    The points are stored in nodes: a node holds the `ratio`^3 points of one half-open cell, so each point has
    one place, found without search. Nodes exist for refined cells and, because of the points on their upper
    faces, for the cells above those.
    """

    def __init__(self, extent: NDArray[np.int64], step: int, next_step: int) -> None:
        self.step, self.next_step, self.ratio = step, next_step, step // next_step
        self.shape = tuple(int(size) for size in extent // step)
        self.node_shape = tuple(size + 1 for size in self.shape)
        self.is_marked = np.zeros(self.shape, np.bool_)  # to be refined as soon as the cell exists
        self.is_refined = np.zeros(self.shape, np.bool_)
        self.node = np.full(self.node_shape, -1, np.int32)
        self.node_cells = np.zeros((0, 3), np.int64)
        self.values = np.zeros((0, self.ratio, self.ratio, self.ratio), np.float32)  # nan: not evaluated
        self.queue: list[NDArray[np.int64]] = []

    def mark(self, cells: NDArray[np.int64]) -> None:
        """Note that cells (M, 3) of the box must be refined."""
        flat = np.ravel_multi_index(tuple(cells.T), self.shape)
        self.is_marked.reshape(-1)[flat] = True
        self.queue.append(flat)

    def take_queue(self) -> NDArray[np.int64]:
        """The marked, unrefined cells (M, 3) of the queue, each once; empties it."""
        flat = _unique(np.concatenate([np.zeros(0, np.int64), *self.queue]))
        self.queue = []
        flat = flat[~self.is_refined.reshape(-1)[flat]]
        return np.stack(np.unravel_index(flat, self.shape), axis=1)


class _Refinement:
    """The state of one refinement. All coordinates are relative to the box's lower corner."""

    def __init__(
        self,
        values_of: Field,
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        config: MiseConfig,
        max_batch: int,
    ) -> None:
        self.values_of, self.low, self.high, self.config = values_of, low, high, config
        self.max_batch = max_batch
        self.levels = [_Level(high - low, *pair) for pair in itertools.pairwise(config.steps)]
        shape = self.levels[0].node_shape
        points = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
        self.coarse_values = self._ask(points * config.steps[0]).reshape(shape)

    def run(self, seeds: NDArray[np.int64]) -> SampledField:
        for level in self.levels:
            level.mark((seeds - self.low) // level.step)
        self.levels[0].mark(np.argwhere(_corners_disagree(self.coarse_values[None] > 0)[0]))
        while any(level.queue for level in self.levels):
            for depth, level in enumerate(self.levels):
                cells = level.take_queue()
                if depth:  # a cell whose parent is not refined comes again when the parent is
                    parent = self.levels[depth - 1]
                    cells = cells[parent.is_refined[tuple((cells // parent.ratio).T)]]
                if len(cells):
                    self._refine(depth, cells)
        keys, values = self._sorted_points()
        refined = [level.is_refined for level in self.levels]
        return SampledField(self.low, self.high, self.config, keys, values, refined)

    def _refine(self, depth: int, cells: NDArray[np.int64]) -> None:
        """Evaluate closed cells (M, 3) of a level at its next step, and mark what their signs call for."""
        level = self.levels[depth]
        level.is_refined[tuple(cells.T)] = True
        inside = self._evaluate(depth, cells)
        if depth + 1 < len(self.levels):
            below = self.levels[depth + 1]
            children = cells[:, None, None, None] * level.ratio + _grid(level.ratio)
            wanted = _corners_disagree(inside) | below.is_marked[tuple(np.moveaxis(children, -1, 0))]
            below.mark(children[wanted])
        # Faces are enough. A face of one sign shows a neighbor nothing that the face's corners had not
        # shown; and a mixed cell edge lies on two mixed faces, which hand it on to the cell across.
        for axis, side in itertools.product(range(3), (0, level.ratio)):
            face = inside.take(side, axis=axis + 1).reshape(len(cells), -1)
            beside = cells[face.any(axis=1) & ~face.all(axis=1)]
            beside[:, axis] += 1 if side else -1
            beside = beside[(beside[:, axis] >= 0) & (beside[:, axis] < level.shape[axis])]
            for upper in self.levels[: depth + 1]:
                upper.mark(beside // (upper.step // level.step))

    def _evaluate(self, depth: int, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Signs (M, r + 1, r + 1, r + 1) of the closed cells' points, asking the field for missing ones."""
        level = self.levels[depth]
        nodes = self._nodes(depth, cells[:, None] + _CORNERS)
        touched = _unique(nodes.ravel())
        row_of = np.empty(len(level.values), np.int32)
        row_of[touched] = np.arange(len(touched), dtype=np.int32)
        rows = row_of[nodes]
        values = level.values[touched]
        is_needed = np.zeros(values.shape, np.bool_)
        for corner, (here, _) in enumerate(_shares(level.ratio)):
            is_needed[rows[:, corner], here[0], here[1], here[2]] = True
        missing = np.nonzero(is_needed & np.isnan(values))
        origins = level.node_cells[touched[missing[0]]] * level.step
        values[missing] = self._ask(origins + np.stack(missing[1:], axis=1) * level.next_step)
        level.values[touched] = values
        signs = values > 0
        inside = np.empty((len(cells), *[level.ratio + 1] * 3), np.bool_)
        for corner, (here, there) in enumerate(_shares(level.ratio)):
            inside[:, there[0], there[1], there[2]] = signs[:, here[0], here[1], here[2]][rows[:, corner]]
        return inside

    def _nodes(self, depth: int, cells: NDArray[np.int64]) -> NDArray[np.int32]:
        """Nodes (M, 8) of cells (M, 8, 3); new ones know the point at their lower corner, and no other."""
        level = self.levels[depth]
        flat = np.ravel_multi_index(tuple(np.moveaxis(cells, -1, 0)), level.node_shape)
        node = level.node.reshape(-1)
        new = _unique(flat[node[flat] < 0])
        node[new] = np.arange(len(level.values), len(level.values) + len(new))
        new_cells = np.stack(np.unravel_index(new, level.node_shape), axis=1)
        values = np.full((len(new), *level.values.shape[1:]), np.nan, np.float32)
        if depth == 0:
            values[:, 0, 0, 0] = self.coarse_values[tuple(new_cells.T)]
        else:
            above = self.levels[depth - 1]
            holder, local = np.divmod(new_cells, above.ratio)
            values[:, 0, 0, 0] = above.values[(above.node[tuple(holder.T)], *local.T)]
        level.values = np.concatenate([level.values, values])
        level.node_cells = np.concatenate([level.node_cells, new_cells])
        found: NDArray[np.int32] = node[flat]
        return found

    def _ask(self, points: NDArray[np.int64]) -> NDArray[np.float32]:
        """Values (N,) of points (N, 3), from the field."""
        values = np.empty(len(points), np.float32)
        for start in range(0, len(points), self.max_batch):
            part = slice(start, start + self.max_batch)
            values[part] = self.values_of(points[part] + self.low)
        if not np.isfinite(values).all():
            where = points[np.flatnonzero(~np.isfinite(values))[0]] + self.low
            raise FieldError(f"the field is not finite at lattice point {tuple(where.tolist())}")
        return values

    def _sorted_points(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Keys and values of all evaluated points, by key."""
        coarse = np.stack(np.unravel_index(np.arange(self.coarse_values.size), self.coarse_values.shape), 1)
        keys = [pack(coarse * self.config.steps[0] + self.low)]
        values = [self.coarse_values.reshape(-1)]
        for level in self.levels:
            is_own = ~np.isnan(level.values)
            is_own[:, 0, 0, 0] = False  # the level above has it
            node, *local = np.nonzero(is_own)
            key = pack(level.node_cells * level.step + self.low)[node]
            for axis, step in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1))):
                key += local[axis] * (key_step(step) * level.next_step)
            keys.append(key)
            values.append(level.values[is_own])
        joined = np.concatenate(keys)
        order = np.argsort(joined)
        return joined[order], np.concatenate(values)[order]


def _unique(numbers: NDArray[Integer]) -> NDArray[Integer]:
    """Sorted distinct integers; several times faster than np.unique, which hashes first."""
    ordered = np.sort(numbers)
    return ordered[is_first(ordered)]


def _grid(side: int) -> NDArray[np.int64]:
    """Offsets (side, side, side, 3) of a cube of points."""
    return np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1)


def _corners_disagree(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For signs (M, a + 1, b + 1, c + 1) of points: which of the (M, a, b, c) cells between have both."""
    any_inside = all_inside = inside
    for axis in (1, 2, 3):
        lower, upper = (slice(None),) * axis + (slice(-1),), (slice(None),) * axis + (slice(1, None),)
        any_inside = any_inside[lower] | any_inside[upper]
        all_inside = all_inside[lower] & all_inside[upper]
    return any_inside & ~all_inside


@cache
def _shares(ratio: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """How the 8 nodes at a closed cell cover its points: for each, the part of the node and of the cell."""
    whole, first, last = slice(0, ratio), slice(0, 1), slice(ratio, ratio + 1)
    return [
        (tuple(first if c else whole for c in corner), tuple(last if c else whole for c in corner))
        for corner in _CORNERS.tolist()
    ]
