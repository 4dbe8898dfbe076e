"""Multiresolution IsoSurface Extraction without a dense grid (Mescheder et al. 2019, section 3.3).

A box of lattice cells is covered by coarse cells. A cell is refined where the surface may be, step by step
down to single lattice cells; everywhere else only the corners of coarse cells are ever evaluated. Values
are logits minus the threshold: inside is > 0.

What is kept: the evaluated points as one sorted key array with their values (this follows the surface), and
one byte for each cell of the last step before 1 (with steps 8, 4, 1: a 64th of the box's lattice points).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convonet.lattice import key_step, pack, unpack

Field = Callable[[NDArray[np.int64]], NDArray[np.float32]]

_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)), dtype=np.int64)
_NEIGHBOURS = [step for step in itertools.product((-1, 0, 1), repeat=3) if step != (0, 0, 0)]
_REFINED = 2  # in the state of a leaf cell: evaluated densely; otherwise +1 or -1, the sign of its corners


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
            raise ValueError(f"steps must divide one another down to 1, got {self.steps}")

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
                total += weight * self._evaluated(corner_keys + key_step(tuple(corner * step)))
            result[here] = total
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

    def to_arrays(self) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
        """Flat arrays: `box`, `steps`, `keys`, `values`, and `refined_L` with the packed cells of level L."""
        arrays: dict[str, NDArray[np.int64] | NDArray[np.float32]] = {
            "box": np.concatenate([self.low, self.high]),
            "steps": np.array(self.config.steps, np.int64),
            "keys": self.keys,
            "values": self.values,
        }
        for level, refined in enumerate(self.refined):
            arrays[f"refined_{level}"] = pack(np.argwhere(refined))
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.int64] | NDArray[np.float32]]) -> SampledField:
        """The inverse of `to_arrays`."""
        low, high = arrays["box"][:3].astype(np.int64), arrays["box"][3:].astype(np.int64)
        config = MiseConfig(tuple(int(step) for step in arrays["steps"]))
        refined = []
        for level, step in enumerate(config.steps[:-1]):
            cells = np.zeros(tuple((high - low) // step), np.bool_)
            cells[tuple(unpack(arrays[f"refined_{level}"].astype(np.int64)).T)] = True
            refined.append(cells)
        return cls(
            low, high, config, arrays["keys"].astype(np.int64), arrays["values"].astype(np.float32), refined
        )


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
    than the cell leaves a refined neighbour. The last rule runs until nothing changes.

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


@dataclass
class _Refinement:
    """The state of one refinement."""

    values_of: Field
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    config: MiseConfig
    max_batch: int
    keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    values: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def run(self, seeds: NDArray[np.int64]) -> SampledField:
        steps, extent = self.config.steps, self.high - self.low
        self.refined = [np.zeros(tuple(extent // step), np.bool_) for step in steps[:-1]]
        self.seeded = [np.zeros_like(refined) for refined in self.refined]
        for level, step in enumerate(steps[:-1]):
            self.seeded[level][tuple(((seeds - self.low) // step).T)] = True
        self.state = np.zeros(tuple(extent // self.config.leaf), np.int8)
        self._evaluate_grid(np.zeros((1, 3), np.int64), extent, steps[0])
        everything = np.argwhere(np.ones_like(self.refined[0]))
        wanted: list[NDArray[np.int64]] = [np.zeros((0, 3), np.int64) for _ in self.refined]
        wanted[0] = self._admit(0, everything)
        while any(len(cells) for cells in wanted):
            fresh = self._descend(wanted)
            wanted = self._propagate(fresh)
        return SampledField(self.low, self.high, self.config, self.keys, self.values, self.refined)

    def _admit(self, level: int, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decide existing cells (M, 3) of a level: note the sign of the unrefined, return those to refine."""
        step = self.config.steps[level]
        corner_keys = pack(cells * step + self.low)
        positive = np.stack(
            [self._value(corner_keys + key_step(tuple(corner * step))) > 0 for corner in _CORNERS]
        ).sum(axis=0)
        mixed = ((positive != 0) & (positive != 8)) | self.seeded[level][tuple(cells.T)]
        plain = cells[~mixed]
        sign = np.where(positive[~mixed] > 0, 1, -1).astype(np.int8)
        scale = step // self.config.leaf
        for offset in itertools.product(range(scale), repeat=3):
            self.state[tuple((plain * scale + np.array(offset)).T)] = sign
        return cells[mixed]

    def _descend(self, wanted: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Refine the wanted cells of every level and what follows below them; returns the new dense leaves."""
        steps = self.config.steps
        carried = np.zeros((0, 3), np.int64)
        for level, cells in enumerate(wanted):
            chosen = np.concatenate([cells, carried])
            if len(chosen):
                chosen = np.unique(chosen, axis=0)
                chosen = chosen[~self.refined[level][tuple(chosen.T)]]
            self.refined[level][tuple(chosen.T)] = True
            self._evaluate_cells(chosen * steps[level], steps[level], steps[level + 1])
            carried = chosen
            if level + 1 < len(wanted):
                ratio = steps[level] // steps[level + 1]
                offsets = np.array(list(itertools.product(range(ratio), repeat=3)))
                children = (chosen[:, None] * ratio + offsets).reshape(-1, 3)
                carried = self._admit(level + 1, children)
        self.state[tuple(carried.T)] = _REFINED
        return carried

    def _propagate(self, fresh: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Unrefined cells that an evaluated point contradicts, by the level at which to refine them."""
        hits = [self._contradicted_by(fresh), self._beside_other_sign()]
        leaves = np.concatenate(hits)
        wanted = []
        for level, step in enumerate(self.config.steps[:-1]):
            cells = leaves // (step // self.config.leaf)
            stops = ~self.refined[level][tuple(cells.T)]
            wanted.append(np.unique(cells[stops], axis=0) if stops.any() else np.zeros((0, 3), np.int64))
            leaves = leaves[~stops]
        return wanted

    def _contradicted_by(self, fresh: NDArray[np.int64]) -> NDArray[np.int64]:
        """Unrefined leaf positions beside new dense leaves (M, 3) whose shared points show another sign."""
        leaf = self.config.leaf
        side = leaf + 1
        if not len(fresh):
            return np.zeros((0, 3), np.int64)
        offsets = np.array([key_step(step) for step in itertools.product(range(side), repeat=3)])
        keys = pack(fresh * leaf + self.low)[:, None] + offsets
        inside = (self._value(keys.ravel()) > 0).reshape(-1, side, side, side)
        found = [np.zeros((0, 3), np.int64)]
        shared = {-1: slice(0, 1), 0: slice(0, side), 1: slice(leaf, side)}
        for step in _NEIGHBOURS:
            beside = fresh + np.array(step)
            exists = ((beside >= 0) & (beside < self.state.shape)).all(axis=1)
            rows = np.flatnonzero(exists)
            sign = self.state[tuple(beside[rows].T)]
            rows, sign = rows[sign != _REFINED], sign[sign != _REFINED]
            part = inside[rows][:, shared[step[0]], shared[step[1]], shared[step[2]]]
            clash = np.where(sign > 0, ~part.all(axis=(1, 2, 3)), part.any(axis=(1, 2, 3)))
            found.append(beside[rows[clash]])
        return np.concatenate(found)

    def _beside_other_sign(self) -> NDArray[np.int64]:
        """Unrefined leaf positions that touch an unrefined one of the other sign."""
        found = [np.zeros((0, 3), np.int64)]
        for step in _NEIGHBOURS:
            here = tuple(
                slice(max(0, -s), size - max(0, s)) for s, size in zip(step, self.state.shape, strict=True)
            )
            there = tuple(
                slice(max(0, s), size - max(0, -s)) for s, size in zip(step, self.state.shape, strict=True)
            )
            clash = np.argwhere(self.state[here] * self.state[there] == -1)
            found.append(clash + np.array([part.start for part in here]))
        return np.concatenate(found)

    def _evaluate_grid(self, origins: NDArray[np.int64], extent: NDArray[np.int64], step: int) -> None:
        axes = [np.arange(0, size + 1, step) for size in extent]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        self._evaluate(pack((origins[:, None] + offsets).reshape(-1, 3) + self.low))

    def _evaluate_cells(self, origins: NDArray[np.int64], side: int, step: int) -> None:
        """Evaluate the points at `step` of closed cells (M, 3) of `side`, relative to the box."""
        if len(origins):
            offsets = np.array([key_step(o) for o in itertools.product(range(0, side + 1, step), repeat=3)])
            self._evaluate((pack(origins + self.low)[:, None] + offsets).ravel())

    def _evaluate(self, keys: NDArray[np.int64]) -> None:
        """Ask the field for points that have no value yet."""
        keys = np.unique(keys)
        if len(self.keys):
            place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            keys = keys[self.keys[place] != keys]
        values = np.empty(len(keys), np.float32)
        for start in range(0, len(keys), self.max_batch):
            part = slice(start, start + self.max_batch)
            values[part] = self.values_of(unpack(keys[part]))
        merged = np.concatenate([self.keys, keys])
        order = np.argsort(merged, kind="stable")
        self.keys, self.values = merged[order], np.concatenate([self.values, values])[order]

    def _value(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.values[np.searchsorted(self.keys, keys)]
