"""Networks of crops against each other: one volume, three planes, planes with a volume, trained equally long.

All see the same crops of analytic scenes in the same order, by the same loss and schedule. Measured: seconds of a
training step, the IoU and the error of the truncated signed distance over held-out crops, and for a tile as
reconstruction cuts it the seconds and the memory (Linux only) of one process that encodes its crop and asks for 400,000
lattice points. Prints and writes one JSON object.

    python -m benchmarks.crop_networks --steps 2000 --output crop_networks.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import machine, tell
from benchmarks.short_training import CPU, held_out_batches, train
from convonet.crop_network import CropNetwork
from convonet.precision import network_precision
from convonet.registry import preset
from convonet.training import CropObjective, TrainingConfig
from preprocessing.analytic import AnalyticConfig

NETWORKS = ("volume", "crop_3plane", "crop_combine")
CROPS = AnalyticConfig(queries=3072)
BLEND = 4  # voxels that reconstruction asks beyond a tile
POINTS_PER_AREA = 9.0  # on a square voxel of surface
TILE_QUERIES = 400_000


def tile_cost(name: str, threads: int) -> dict[str, Any]:
    """Seconds and peak memory of one tile, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_tile_cost, (name, threads))


def _tile_cost(name: str, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    network = preset(name).build().eval().requires_grad_(False)
    assert isinstance(network, CropNetwork)
    factor, tile = network.pooling_factor, network.tile_voxels
    halo = -(-(network.receptive_radius + BLEND) // factor) * factor
    side = tile + 2 * halo
    points = torch.from_numpy(_two_walls(side))
    crop = torch.zeros(max(len(points), TILE_QUERIES), dtype=torch.int64)
    queries = halo + tile * torch.rand(TILE_QUERIES, 3, generator=torch.Generator().manual_seed(0))
    before = _fresh_peak()
    with torch.inference_mode(), network_precision(CPU):
        started = time.perf_counter()
        features = network.encode(points, crop[: len(points)], 1, (side, side, side))
        encoded = time.perf_counter()
        found = _asked(network, features, queries, crop)
        decoded = time.perf_counter()
    assert torch.isfinite(found).all()
    return {
        "tile_voxels": tile,
        "crop_voxels": side,
        "encode_s": encoded - started,
        "decode_s": decoded - encoded,
        "seconds_per_million_tile_voxels": (encoded - started) / tile**3 * 1e6,
        "peak_memory_mib": (_peak_bytes() - before) / 2**20,
    }


def _asked(network: CropNetwork, features: Any, queries: Tensor, crop: Tensor) -> Tensor:
    parts = torch.split(queries, 131_072)
    return torch.cat([network.decode(features, part, crop[: len(part)]).float() for part in parts])


def _two_walls(side: int) -> np.ndarray:
    """Points (N, 3) float32 on a floor and a wall through a crop."""
    rng = np.random.default_rng(0)
    count = int(POINTS_PER_AREA * side**2)
    floor, wall = (rng.random((count, 3)) * side for _ in range(2))
    floor[:, 2], wall[:, 0] = 0.5 * side + 0.3, 0.4 * side + 0.7
    return np.concatenate([floor, wall]).astype(np.float32)


def _peak_bytes() -> int:
    """Largest resident size of this process since `_fresh_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _fresh_peak() -> int:
    """Forget the largest resident size so far; the present one."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def main() -> None:
    """Train and measure all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="presets of networks of crops")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=50, help="batches of held-out crops")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = replace(
        TrainingConfig(),
        steps=options.steps,
        batch_size=options.batch_size,
        warmup_steps=min(100, options.steps),
    )
    held_out = held_out_batches(CROPS, options.held_out, options.batch_size)
    figures: dict[str, Any] = {}
    for name in options.networks:
        _, figures[name] = train(preset(name).build, CROPS, CropObjective(), config, held_out)
        figures[name]["tile"] = tile_cost(name, options.threads)
        print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    tell({"machine": machine(), "steps": options.steps, "networks": figures}, options.output)


if __name__ == "__main__":
    main()
