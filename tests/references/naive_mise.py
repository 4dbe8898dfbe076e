"""Multiresolution refinement by its definition: sweep over all cells until the rule changes nothing."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int, int]


def naive_refine(
    values: NDArray[np.float32], steps: tuple[int, ...], seeds: NDArray[np.int64]
) -> tuple[list[set[Cell]], NDArray[np.bool_]]:
    """Refined cells of each level, and which points are evaluated.

    Args:
        values: (X + 1, Y + 1, Z + 1) the field at every lattice point of the closed box at (0, 0, 0).
        steps: sides of the cells of each level, as in `MiseConfig`.
        seeds: (K, 3) lattice cells that hold scan points.
    """
    inside = values > 0
    evaluated = np.zeros_like(inside)
    evaluated[:: steps[0], :: steps[0], :: steps[0]] = True
    extent = [size - 1 for size in values.shape]
    refined: list[set[Cell]] = [set() for _ in steps[:-1]]
    existing: list[set[Cell]] = [set() for _ in steps]
    existing[0] = set(itertools.product(*[range(size // steps[0]) for size in extent]))
    changed = True
    while changed:
        changed = False
        for level, step in enumerate(steps[:-1]):
            seeded = {tuple(int(c) for c in seed // step) for seed in seeds}
            for cell in existing[level] - refined[level]:
                box = tuple(slice(c * step, c * step + step + 1) for c in cell)
                signs = inside[box][evaluated[box]]
                if cell not in seeded and signs.all() == signs.any():
                    continue
                finer, changed = steps[level + 1], True
                refined[level].add(cell)
                evaluated[tuple(slice(part.start, part.stop, finer) for part in box)] = True
                ratio = step // finer
                existing[level + 1] |= {
                    (cell[0] * ratio + i, cell[1] * ratio + j, cell[2] * ratio + k)
                    for i, j, k in itertools.product(range(ratio), repeat=3)
                }
    return refined, evaluated
