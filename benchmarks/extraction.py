"""Surface extraction: sparse MISE with our marching cubes against a dense grid with scikit-image's.

The same analytic field (three balls and a box) is evaluated by both in one process, at each resolution. The
field's own time is taken out: here it is cheap, with a network it is the bulk, and then the number of points
asked for is what counts. Prints and writes one JSON object.

    OMP_NUM_THREADS=1 python benchmarks/extraction.py --resolutions 128 256 512 --output extraction.json
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from benchmarks.machine import tell
from convonet.surface.marching_cubes import extract_blocks
from convonet.surface.mise import MiseConfig, refine

CENTRES = np.array([[0.3, 0.3, 0.3], [0.7, 0.6, 0.4], [0.4, 0.75, 0.7]])
RADII = np.array([0.18, 0.2, 0.15])
BOX = np.array([[0.62, 0.1, 0.62], [0.9, 0.35, 0.9]])
DENSE_SLAB = 1 << 20  # points evaluated at once for the dense grid


class TimedField:
    """Three balls and a box in a cube of `size` lattice cells; counts points and its own seconds."""

    def __init__(self, size: int) -> None:
        self.size, self.points, self.seconds = size, 0, 0.0

    def __call__(self, points: NDArray[np.int64]) -> NDArray[np.float32]:
        start = time.perf_counter()
        position = points / self.size
        values = np.minimum(position - BOX[0], BOX[1] - position).min(axis=1)
        for center, radius in zip(CENTRES, RADII, strict=True):
            np.maximum(values, radius - np.sqrt(((position - center) ** 2).sum(axis=1)), out=values)
        self.points += len(points)
        self.seconds += time.perf_counter() - start
        return (values * self.size).astype(np.float32)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """The result of an action and its seconds."""
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def edges_not_shared_by_two(faces: NDArray[np.int64]) -> int:
    """How many undirected edges have other than two faces."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    keys = np.sort(edges[:, 0] * (int(faces.max()) + 1) + edges[:, 1])
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return int((np.diff(np.r_[first, len(keys)]) != 2).sum())


def sparse(size: int, steps: tuple[int, ...]) -> dict[str, Any]:
    """Our way: refine, gather blocks, extract, index."""
    field, low = TimedField(size), np.zeros(3, np.int64)
    no_seeds = np.zeros((0, 3), np.int64)
    sampled, mise_s = timed(lambda: refine(field, low, low + size, no_seeds, MiseConfig(steps)))
    blocks, blocks_s = timed(sampled.blocks)
    surface, cubes_s = timed(lambda: extract_blocks(*blocks))
    faces, index_s = timed(surface.indexed_faces)
    return {
        "steps": list(steps),
        "points": field.points,
        "field_s": field.seconds,
        "mise_s": mise_s - field.seconds,
        "blocks_s": blocks_s,
        "marching_cubes_s": cubes_s,
        "index_s": index_s,
        "total_without_field_s": mise_s - field.seconds + blocks_s + cubes_s + index_s,
        "faces": len(faces),
        "bad_edges": edges_not_shared_by_two(faces),
    }


def dense(size: int) -> dict[str, Any]:
    """The plain way: every lattice point, then scikit-image (Lewiner)."""
    field, side = TimedField(size), size + 1
    values = np.empty((side, side, side), np.float32)
    thickness = max(1, DENSE_SLAB // side**2)
    for start in range(0, side, thickness):
        slab = np.indices((min(thickness, side - start), side, side)).reshape(3, -1).T
        slab[:, 0] += start
        values[start : start + thickness] = field(slab).reshape(-1, side, side)
    (_, faces, _, _), cubes_s = timed(lambda: marching_cubes(values, 0.0))
    return {
        "points": field.points,
        "field_s": field.seconds,
        "marching_cubes_s": cubes_s,
        "faces": len(faces),
        "bad_edges": edges_not_shared_by_two(faces),
    }


def best_of(repeats: int, run: Callable[[], dict[str, Any]], key: str) -> dict[str, Any]:
    """The fastest of several runs."""
    return min((run() for _ in range(repeats)), key=lambda result: float(result[key]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "numpy": np.__version__}
    report["runs"] = []
    # The first call of each path pays for imports and tables.
    sparse(32, (8, 4, 1)), dense(32)
    for size, steps in itertools.product(options.resolutions, [(8, 4, 1), (8, 4, 2, 1)]):
        ours = best_of(options.repeats, lambda: sparse(size, steps), "total_without_field_s")  # noqa: B023
        report["runs"].append({"resolution": size, "method": "sparse", **ours})
    for size in options.resolutions:
        plain = best_of(options.repeats, lambda: dense(size), "marching_cubes_s")  # noqa: B023
        report["runs"].append({"resolution": size, "method": "dense", **plain})
    tell(report, options.output)


if __name__ == "__main__":
    main()
