"""Preprocessing: shapes a minute with one and two workers, labels a second, random blocks a second, memory.

Every ratio compares two ways in this one run. Peers: `trimesh.contains` (rtree), a labeller that hashes faces
into a grid and counts crossings of one ray as the original's Cython code does (here in vectorised numpy), and one
.npz file for each shape, as the originals keep theirs. Prints and writes one JSON object.

    python -m benchmarks.preprocess --output preprocess.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from benchmarks.machine import machine
from pipeline import preprocess
from pipeline.cluster import ray_session
from preprocessing.dataset import BLOCK, BlockReader, DatasetLayout, ShapeSamples, create_dataset, write_shard
from preprocessing.mesh_samples import ShapeLabels, mesh_samples
from preprocessing.occupancy_labels import label_solid
from preprocessing.sources import MeshOptions, meshes_collection
from preprocessing.watertight import WatertightConfig

GRID = 512  # cells along each axis of the hash grid, as in the original


def write_meshes(folder: Path, count: int) -> None:
    """Seeded soups: dented balls, half of them with holes."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        mesh = trimesh.creation.icosphere(subdivisions=4)
        waves = rng.normal(0, 3, (4, 3))
        dents = np.sin(mesh.vertices @ waves.T + rng.uniform(0, 6, 4)).sum(axis=1)
        mesh.vertices = mesh.vertices * (1 + 0.08 * dents[:, None]) * rng.uniform(0.4, 1, 3)
        if seed % 2:
            mesh.update_faces(rng.random(len(mesh.faces)) > 0.01)
        mesh.export(folder / f"{seed:04d}.ply")


def _timed_unit(path: str) -> float:
    """Runs in a plain process, one thread: seconds to make one shape."""
    collection = meshes_collection(Path(path), MeshOptions())
    started = time.perf_counter()
    collection.units[1].make(collection.layout)
    return time.perf_counter() - started


def measure_ceiling(folder: Path) -> float:
    """What a second processor is worth on this machine without Ray: the same shape in one and in two processes."""
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds = []
    for processes in (1, 2):
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.map(_timed_unit, [str(folder)] * processes, chunksize=1)
            seconds.append(float(np.mean(pool.map(_timed_unit, [str(folder)] * processes, chunksize=1))))
    del os.environ["OMP_NUM_THREADS"]
    return 2 * seconds[0] / seconds[1]


def measure_scaling(count: int) -> dict[str, Any]:
    """Shapes a minute of the whole stage, start of Ray excluded, start of its workers included."""
    result: dict[str, Any] = {"shapes": count}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "meshes"
        folder.mkdir()
        write_meshes(folder, count)
        collection = meshes_collection(folder, MeshOptions())
        result["ceiling"] = measure_ceiling(folder)
        for workers in (1, 2):
            with ray_session("local", cpus=workers):
                started = time.perf_counter()
                preprocess(collection, Path(place) / f"{workers}.zarr")
                result[f"shapes_per_minute_{workers}"] = 60 * count / (time.perf_counter() - started)
    result["scaling"] = result["shapes_per_minute_2"] / result["shapes_per_minute_1"]
    return result


@dataclass(frozen=True)
class HashGrid:
    """Faces hashed into a grid over x and y; occupancy by the parity of crossings along z.

    The method of the originals' inside test (Stutz and Geiger 2018; Mescheder et al. 2019), one ray a point.
    """

    corners: NDArray[np.float64]
    triangle: NDArray[np.int64]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> HashGrid:
        """Build the grid; positions are scaled to it."""
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        corners = ((vertices - low) / (high - low).max() * (GRID - 1))[faces]
        start = np.floor(corners[..., :2].min(axis=1)).astype(np.int64)
        end = np.floor(corners[..., :2].max(axis=1)).astype(np.int64)
        wide = end - start + 1
        number = wide.prod(axis=1)
        owner = np.repeat(np.arange(len(corners)), number)
        within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        x = start[owner, 0] + within // wide[owner, 1]
        y = start[owner, 1] + within % wide[owner, 1]
        cell = x * GRID + y
        order = np.argsort(cell, kind="stable")
        return cls(corners, owner[order], np.searchsorted(cell[order], np.arange(GRID * GRID + 1)))

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points in grid coordinates are inside."""
        column = np.floor(points[:, :2]).astype(np.int64)
        valid = ((column >= 0) & (column < GRID)).all(axis=1)
        cell = np.where(valid, column[:, 0] * GRID + column[:, 1], 0)
        number = np.where(valid, self.first[cell + 1] - self.first[cell], 0)
        point = np.repeat(np.arange(len(points)), number)
        within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        a, b, c = np.moveaxis(self.corners[self.triangle[self.first[cell[point]] + within]], 1, 0)
        place = points[point]

        def side(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
            along, across = two - one, place - one
            return np.asarray(along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0])

        u, v, w = side(b, c), side(c, a), side(a, b)
        total = u + v + w
        hit = ((u > 0) == (v > 0)) & ((v > 0) == (w > 0)) & (total != 0)
        height = np.divide(
            u * a[:, 2] + v * b[:, 2] + w * c[:, 2], total, out=np.zeros_like(total), where=hit
        )
        crossings = np.bincount(point[hit & (height > place[:, 2])], minlength=len(points))
        return crossings % 2 == 1


def rate(call: Callable[[], Any], count: int, repeats: int = 3) -> float:
    """Best rate of `count` things a call, over some calls."""
    best = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return count / best


def measure_labels(queries: int) -> dict[str, Any]:
    """Labels a second on a mesh of 81,920 faces; all three include building their index."""
    mesh = trimesh.creation.icosphere(subdivisions=6, radius=0.45)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    points = np.random.default_rng(0).uniform(-0.55, 0.55, (queries, 3))
    few = points[:500]  # trimesh takes gigabytes for more
    low, high = vertices.min(axis=0), vertices.max(axis=0)

    def by_hash() -> NDArray[np.bool_]:
        grid = HashGrid.of(vertices, faces)
        scaled = (points - low) / (high - low).max() * (GRID - 1)
        return np.concatenate([grid.contains(part) for part in np.array_split(scaled, 20)])

    exact = np.linalg.norm(points, axis=1) < 0.45
    clear = np.abs(np.linalg.norm(points, axis=1) - 0.45) > 1e-3
    wrong = {
        "ours": float((label_solid(vertices, faces, points) != exact)[clear].mean()),
        "hash_grid": float((by_hash() != exact)[clear].mean()),
    }
    ours = rate(lambda: label_solid(vertices, faces, points), len(points))
    hashed = rate(by_hash, len(points), 2)
    slow = rate(lambda: trimesh.Trimesh(vertices, faces, process=False).contains(few), len(few), 1)
    return {
        "faces": len(faces),
        "queries": len(points),
        "labels_per_second": {"ours": ours, "hash_grid": hashed, "trimesh_contains": slow},
        "ratio_to_hash_grid": ours / hashed,
        "ratio_to_trimesh": ours / slow,
        "ratio_to_the_originals_267000": ours / 267_000,
        "wrong_away_from_the_surface": wrong,
    }


def measure_blocks(shapes: int, reads: int) -> dict[str, Any]:
    """Random blocks of 2,048 queries with their occupancy, files in the page cache."""
    import zarr

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        layout = DatasetLayout(shapes, ("ball",))
        store = Path(place) / "balls.zarr"
        create_dataset(store, layout, {})
        for shard in range(layout.shards):
            samples = []
            for shape in layout.shard_shapes(shard):
                queries = rng.uniform(-0.55, 0.55, (2, layout.uniform_queries, 3)).astype(np.float32)
                occupied = np.linalg.norm(queries, axis=2) < 0.4
                samples.append(
                    ShapeSamples(
                        queries[0], queries[1], queries[0], occupied[0], queries[1], occupied[1],
                        np.zeros(3), 1.0, "ball", "train", str(shape),
                    ).row(layout)
                )  # fmt: skip
                np.savez(
                    Path(place) / f"{shape}.npz", points=queries[0], occupancies=np.packbits(occupied[0])
                )
            write_shard(store, shard, samples)
        blocks = layout.uniform_queries // BLOCK
        chosen = np.stack(
            [rng.integers(shapes, size=reads), rng.integers(blocks, size=reads)], axis=1
        ).tolist()
        asked, bits = (BlockReader(store, layout, f"uniform_{name}") for name in ("queries", "occupancy"))
        group = zarr.open_group(str(store), mode="r")
        plain_asked: Any = group["uniform_queries"]
        plain_bits: Any = group["uniform_occupancy"]

        def ours() -> None:
            for shape, block in chosen:
                asked.read(shape, block), np.unpackbits(bits.read(shape, block))

        def plain() -> None:
            for shape, block in chosen[: reads // 4]:
                plain_asked[shape, block * BLOCK : (block + 1) * BLOCK]
                np.unpackbits(plain_bits[shape, block * BLOCK // 8 : (block + 1) * BLOCK // 8])

        def npz() -> None:
            for shape, _ in chosen[: reads // 4]:
                with np.load(Path(place) / f"{shape}.npz") as stored:
                    points, occupied = stored["points"], np.unpackbits(stored["occupancies"])
                    rows = rng.integers(0, len(points), BLOCK)
                    points[rows], occupied[rows]

        rates = {
            "ours": rate(ours, reads),
            "zarr_python": rate(plain, reads // 4),
            "npz": rate(npz, reads // 4),
        }
    return {"shapes": shapes, "blocks_per_second": rates, "ratio_to_npz": rates["ours"] / rates["npz"]}


def peak_gib() -> float:
    """Peak resident memory of this process since it was started (`ru_maxrss` counts the parent's too)."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**20


def _large_mesh(is_closed: bool, results: Any) -> None:
    """Runs in a process of its own: everything of one mesh of more than a million faces."""
    mesh = trimesh.creation.icosphere(subdivisions=8)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64)
    del mesh
    if not is_closed:
        faces = faces[np.random.default_rng(0).random(len(faces)) > 0.001]
    before = peak_gib()
    started = time.perf_counter()
    layout = DatasetLayout(1, ("ball",), voxel_side=32, views=24, view_size=137)
    labels = ShapeLabels("ball", "ball", "train", 0)
    samples = mesh_samples(vertices, faces, labels, layout, WatertightConfig())
    results.put(
        {
            "faces": len(faces),
            "method": samples.provenance["method"],
            "seconds": time.perf_counter() - started,
            "peak_gib": peak_gib(),
            "peak_before_gib": before,
        }
    )


def measure_memory() -> list[dict[str, Any]]:
    """Peak resident memory of a worker with a large mesh, closed and with holes."""
    context = multiprocessing.get_context("spawn")
    measured = []
    for is_closed in (True, False):
        results = context.Queue()
        process = context.Process(target=_large_mesh, args=(is_closed, results))
        process.start()
        measured.append(results.get(timeout=1800))
        process.join()
    return measured


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=int, default=64, help="meshes of the scaling run")
    parser.add_argument("--queries", type=int, default=2_000_000, help="points to label")
    parser.add_argument("--reads", type=int, default=20_000, help="random blocks to read")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    result = {
        "machine": machine(),
        "labels": measure_labels(arguments.queries),
        "blocks": measure_blocks(64, arguments.reads),
        "memory": measure_memory(),
        "scaling": measure_scaling(arguments.shapes),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
