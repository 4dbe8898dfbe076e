"""The volume network's fast path against a straight fp32 contiguous implementation of the same network.

Both hold the packaged weights and run in one process, in turn, several times; the best of each counts. The fast path
is what reconstruction and training run: bfloat16 where the processor has units for it (and float32, to show
what other processors gain), channels-last memory, a first convolution over the occupied voxels, in training a last
one at the voxels that queries read, fused sampling, a decoder in cache-sized parts. Also the error of the fast path,
and the reductions of point features over cells against other ways. Prints and writes one JSON object.

    python -m benchmarks.networks --output networks.json
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import machine, tell
from convonet import DEFAULT_MODEL
from convonet.layers.point_encoder import SHEET_VOXELS, PointHints
from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.scatter import pool_cells
from convonet.precision import cpu_has_bf16_units, network_precision
from convonet.training import Criterion, CropBatch, CropObjective, TrainingConfig, TrainingState, train_step
from convonet.volume import VolumeNetwork, VolumeNetworkConfig
from convonet.weights import load_network
from preprocessing.procedural.synthetic_rooms import synthetic_room
from preprocessing.surface_sampling import sample_surface

CPU = torch.device("cpu")
SIDE = 64  # voxels along a side of the crop
GRID = (SIDE, SIDE, SIDE)
POINTS = 10_000
NOISE = 0.005  # of the room's side
QUERIES = 1_000_000
QUERY_BATCH = 131_072  # as reconstruction asks
TRAINING_QUERIES = 3072  # of one crop, as training draws
TARGETS = {  # ratios on processors with bfloat16 matrix units, and elsewhere
    "encode": {"bf16": 4.0, "fp32": 1.3},
    "decode": {"bf16": 2.0, "fp32": 1.3},
    "training_step": {"bf16": 3.0, "fp32": 1.3},
}


class PlainNetwork(VolumeNetwork):
    """The same parameters, computed step by step in float32 and contiguous memory, as one would write it first.

    Args:
        config: of the network.
        with_grid_sample: read the volume with `F.grid_sample`, or gather the eight corners.
    """

    def __init__(self, config: VolumeNetworkConfig, with_grid_sample: bool = False) -> None:
        super().__init__(config)
        self.with_grid_sample = with_grid_sample

    def encode(
        self,
        points: Tensor,
        batch_index: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        hints: PointHints | None = None,
    ) -> Tensor:
        depth, height, width = grid_shape
        cells = torch.floor(points).long()
        flat = ((batch_index * depth + cells[:, 2]) * height + cells[:, 1]) * width + cells[:, 0]
        count = batch_size * depth * height * width
        counts = torch.zeros(count).index_add_(0, flat, torch.ones(len(flat)))
        index = flat[:, None].expand(-1, self.config.encoder_hidden)
        x = self.encoder.fc_position(2 * (points - torch.floor(points)) - 1)
        if hints is not None and self.encoder.fc_hints is not None:
            x = x + self.encoder.fc_hints(torch.cat([hints.directions, 1 - hints.sheets[:, None] / 3], dim=1))
        x = self.encoder.blocks[0](x)
        for block in list(self.encoder.blocks)[1:]:
            largest = torch.zeros(count, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)
            x = block(torch.cat([x, largest[flat]], dim=1))
        mean = torch.zeros(count, x.shape[1]).index_add(0, flat, x) / counts.clamp_min(1)[:, None]
        features = self.encoder.fc_feature(
            mean + self.encoder.fc_density(torch.log(counts.clamp_min(1))[:, None])
        )
        features = torch.where(counts[:, None] > 0, features, 0.0)
        volume = features.view(batch_size, depth, height, width, -1).permute(0, 4, 1, 2, 3).contiguous()
        skips = [plain_block(self.unet.encode_finest, volume)]
        for encode in self.unet.encode:
            y = F.max_pool3d(skips[-1], 2)
            for block in encode:
                y = plain_block(block, y)
            skips.append(y)
        y = skips.pop()
        for reduce, decode in zip(reversed(self.unet.reduce), reversed(self.unet.decode), strict=True):
            y = skips.pop() + F.interpolate(reduce(y), scale_factor=2.0, mode="nearest")
            y = plain_block(decode, y)
        return self.unet.out(y)

    def decode(self, volume: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
        read = read_with_grid_sample if self.with_grid_sample else read_eight_corners
        features = read(volume, queries, batch_index)
        phase = (2 * torch.pi) * (queries - torch.floor(queries))
        x = self.decoder.fc_position(torch.cat([torch.sin(phase), torch.cos(phase)], dim=1))
        for fc_feature, block in zip(self.decoder.fc_feature, self.decoder.blocks, strict=True):
            x = block(x + fc_feature(features))
        return self.decoder.fc_out(torch.relu(x)).squeeze(1)

    def forward(self, *inputs: Any) -> Tensor:
        *encoded, queries, query_batch, hints = inputs
        return self.decode(self.encode(*encoded, hints), queries, query_batch)


def plain_block(block: nn.Module, x: Tensor) -> Tensor:
    """Convolution, layer normalization over the channels and back to contiguous memory, ReLU, sum."""
    y = block.conv(x).permute(0, 2, 3, 4, 1)
    y = F.layer_norm(y, (y.shape[-1],), block.norm.weight, block.norm.bias)
    y = torch.relu(y.permute(0, 4, 1, 2, 3).contiguous())
    return x + y if block.is_residual else y


def read_with_grid_sample(volume: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
    """Trilinear features (N, C), crop by crop."""
    sides = torch.tensor(volume.shape[:1:-1], dtype=queries.dtype)
    features = queries.new_empty(len(queries), volume.shape[1])
    for crop in range(len(volume)):
        rows = torch.nonzero(batch_index == crop)[:, 0]
        grid = (2 * queries[rows] / sides - 1)[None, None, None]
        read = F.grid_sample(volume[crop : crop + 1], grid, padding_mode="border", align_corners=False)
        features = features.index_copy(0, rows, read[0, :, 0, 0].T)
    return features


def read_eight_corners(volume: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
    """Trilinear features (N, C): a weighted sum of eight indexed reads."""
    sides = torch.tensor(volume.shape[:1:-1])
    position = torch.minimum((queries - 0.5).clamp_min(0), (sides - 1).to(queries.dtype))
    low = torch.minimum(position.long(), sides - 2)
    upper = position - low
    features = torch.zeros(len(queries), volume.shape[1])
    for corner in np.ndindex(2, 2, 2):
        at = low + torch.tensor(corner)
        weight = torch.where(torch.tensor(corner) == 1, upper, 1 - upper).prod(dim=1)
        features = features + weight[:, None] * volume[batch_index, :, at[:, 2], at[:, 1], at[:, 0]]
    return features


def room_crop(seed: int) -> tuple[Tensor, Tensor]:
    """A procedural room of 64 voxels: its noisy points (10,000, 3), and queries (1,000,000, 3), half near points."""
    rng = np.random.default_rng([seed, 1])
    points, _ = sample_surface(*synthetic_room(seed).mesh(), POINTS, rng)
    points = points + rng.normal(0, NOISE, points.shape)
    points = ((points + 0.5) * (SIDE - 4) + 2).clip(0, SIDE - 1e-3)
    near = points[rng.integers(POINTS, size=QUERIES // 2)] + rng.normal(0, 1.0, (QUERIES // 2, 3))
    queries = np.concatenate([near.clip(0, SIDE), rng.uniform(0, SIDE, (QUERIES - len(near), 3))])
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(queries.astype(np.float32))


def best_in_turn(repeats: int, actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least seconds of each action; the actions take turns, so that a busy machine slows all of them."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(repeats + 1):  # the first round only warms up
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def encode(network: VolumeNetwork, points: Tensor, use_bf16: bool) -> Tensor:
    """The volume of one crop."""
    with torch.inference_mode(), network_precision(CPU, use_bf16):
        return network.encode(points, torch.zeros(len(points), dtype=torch.int64), 1, GRID)


def decode(network: VolumeNetwork, volume: Tensor, queries: Tensor, use_bf16: bool) -> Tensor:
    """Logits float32 at all queries, asked for in the batches of reconstruction."""
    parts = []
    for part in queries.split(QUERY_BATCH):
        with torch.inference_mode(), network_precision(CPU, use_bf16):
            parts.append(network.decode(volume, part, torch.zeros(len(part), dtype=torch.int64)).float())
    return torch.cat(parts)


def training_batch(side: int) -> CropBatch:
    """Two rooms with labels from nowhere in particular: they do not change the time of a step."""
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([room_crop(seed)[0] for seed in range(2)]) * (side / SIDE)
    queries = torch.rand(2 * TRAINING_QUERIES, 3, generator=generator) * side
    return CropBatch(
        points=points,
        point_batch=torch.arange(2).repeat_interleave(POINTS),
        directions=torch.zeros_like(points),
        sheets=torch.full((len(points),), SHEET_VOXELS),
        queries=queries,
        query_batch=torch.arange(2).repeat_interleave(TRAINING_QUERIES),
        distances=queries[:, 2] - side / 4,
        batch_size=2,
        grid_shape=(side, side, side),
    )


def trained_step(network: VolumeNetwork, batch: CropBatch, use_bf16: bool) -> Callable[[], object]:
    """One more step of a fresh training run, each time it is called."""
    config = TrainingConfig()
    state = TrainingState.fresh(network.requires_grad_(True), config)
    return lambda: train_step(Criterion(network, CropObjective(use_bf16)), state, batch, config)


def ratios(task: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Seconds of each way, and how many times as fast as the fastest plain one ours are."""
    plain = min(value for name, value in seconds.items() if name.startswith("plain"))
    result: dict[str, Any] = {"seconds": seconds}
    for precision, target in TARGETS[task].items():
        if precision in seconds:
            ratio = plain / seconds[precision]
            result[precision] = {"ratio": ratio, "target": target, "is_reached": ratio >= target}
    return result


def precisions() -> dict[str, bool]:
    """The number formats that this processor computes our network in, and whether each is bfloat16."""
    return {"bf16": True, "fp32": False} if cpu_has_bf16_units() else {"fp32": False}


def network_figures(repeats: int) -> dict[str, Any]:
    """Encoding, decoding and the training step."""
    ours = load_network(DEFAULT_MODEL)
    assert isinstance(ours, VolumeNetwork)
    plain = {"plain": PlainNetwork(ours.config), "plain_grid_sample": PlainNetwork(ours.config, True)}
    for network in plain.values():
        network.load_state_dict(ours.state_dict())
        network.eval().requires_grad_(False)
    points, queries = room_crop(seed=0)
    formats = precisions()
    volumes = {name: encode(ours, points, use_bf16) for name, use_bf16 in formats.items()}
    plain_volume = encode(plain["plain"], points, False)
    exact = decode(plain["plain"], plain_volume, queries, False)
    errors = {
        name: error_of(decode(ours, volume, queries, formats[name]), exact)
        for name, volume in volumes.items()
    }
    errors["plain_grid_sample"] = error_of(
        decode(plain["plain_grid_sample"], plain_volume, queries, False), exact
    )
    if errors["fp32"]["largest"] > 1e-4:
        raise SystemExit(f"the plain network gives other logits than ours: {errors['fp32']}")

    encoding: dict[str, Callable[[], object]] = {"plain": lambda: encode(plain["plain"], points, False)}
    decoding: dict[str, Callable[[], object]] = {}
    for name, network in plain.items():
        decoding[name] = lambda network=network: decode(network, plain_volume, queries, False)
    for name, use_bf16 in formats.items():
        encoding[name] = lambda use_bf16=use_bf16: encode(ours, points, use_bf16)
        decoding[name] = lambda name=name: decode(ours, volumes[name], queries, formats[name])
    figures: dict[str, Any] = {
        "error_against_plain": errors,
        "encode": ratios("encode", best_in_turn(repeats, encoding)),
        "decode": ratios("decode", best_in_turn(repeats, decoding)),
    }
    for side in (64, 48):  # a whole room, and a window of something larger
        batch = training_batch(side)
        steps = {"plain": trained_step(copy_of(PlainNetwork, ours), batch, False)}
        for name, use_bf16 in formats.items():
            steps[name] = trained_step(copy_of(VolumeNetwork, ours), batch, use_bf16)
        figures[f"training_step_{side}"] = ratios("training_step", best_in_turn(repeats, steps))
    return figures


def copy_of(kind: type[VolumeNetwork], network: VolumeNetwork) -> VolumeNetwork:
    """A network of `kind` with its own copy of the weights."""
    copy = kind(network.config)
    copy.load_state_dict(network.state_dict())
    return copy


def error_of(logits: Tensor, exact: Tensor) -> dict[str, float]:
    """Largest and mean difference of logits; share of differing decisions where the exact logit is beyond 0.1."""
    is_decided = exact.abs() > 0.1
    differs = (logits > 0) != (exact > 0)
    return {
        "largest": float((logits - exact).abs().max()),
        "mean": float((logits - exact).abs().mean()),
        "decided_share": float(is_decided.float().mean()),
        "decisions_that_differ": float(differs[is_decided].float().mean()),
    }


def scatter_figures(repeats: int) -> dict[str, Any]:
    """Milliseconds to reduce 30,000 points x 32 channels over the cells of a 64^3 grid, and with the gradient."""
    generator = torch.Generator().manual_seed(0)
    count, channels, cells = 30_000, 32, SIDE**3
    features = torch.randn(count, channels, generator=generator)
    # As crowded as a room: on average about two points to an occupied cell.
    flat = torch.randint(16_277, (count,), generator=generator) * (cells // 16_277)
    occupied = OccupiedVoxels.of_cells(flat)
    index = flat[:, None].expand(-1, channels)

    def dense_mean(values: Tensor) -> Tensor:
        counts = torch.zeros(cells).index_add_(0, flat, torch.ones(count))
        return torch.zeros(cells, channels).index_add(0, flat, values) / counts.clamp_min(1)[:, None]

    def reduce_with(reduction: str) -> Callable[[Tensor], Tensor]:
        def reduce(values: Tensor) -> Tensor:
            return torch.zeros(cells, channels).scatter_reduce(
                0, index, values, reduction, include_self=False
            )

        return reduce

    ways: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
        "mean": {
            "compact": lambda values: pool_cells(values, occupied, "mean"),
            "scatter_reduce": reduce_with("mean"),
            "index_add": dense_mean,
        },
        "max": {
            "compact": lambda values: pool_cells(values, occupied, "max"),
            "scatter_reduce": reduce_with("amax"),
        },
    }
    try:
        torch_scatter: Any = importlib.import_module("torch_scatter")
    except ImportError:
        torch_scatter = None
    if torch_scatter is not None:
        ways["mean"]["compact_torch_scatter"] = lambda values: pool_cells(
            values, occupied, "mean", "torch_scatter"
        )
        ways["max"]["compact_torch_scatter"] = lambda values: pool_cells(
            values, occupied, "max", "torch_scatter"
        )
        for name in ways:
            ways[name]["torch_scatter"] = lambda values, name=name: torch_scatter.scatter(
                values, flat, 0, dim_size=cells, reduce=name
            )

    def with_gradient(reduce: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        values = features.clone().requires_grad_(True)
        return lambda: torch.autograd.grad(reduce(values).sum(), values)

    unique_s = best_in_turn(repeats, {"unique": lambda: OccupiedVoxels.of_cells(flat)})["unique"]
    figures: dict[str, Any] = {"occupied": len(occupied.flat_index), "unique_once_ms": 1000 * unique_s}
    for name, reductions in ways.items():
        expected = reductions["compact"](features)
        for reduce in reductions.values():
            result = reduce(features)
            is_dense = len(result) == cells
            torch.testing.assert_close(result[occupied.flat_index] if is_dense else result, expected)
        forward = {way: lambda reduce=reduce: reduce(features) for way, reduce in reductions.items()}
        both = {way: with_gradient(reduce) for way, reduce in reductions.items()}
        forward_s, both_s = best_in_turn(repeats, forward), best_in_turn(repeats, both)
        figures[name] = {
            way: {"forward_ms": 1000 * forward_s[way], "with_gradient_ms": 1000 * both_s[way]}
            for way in reductions
        }
        if torch_scatter is None:
            figures[name]["torch_scatter"] = "not installed"
    return figures


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {"machine": machine(), "threads": options.threads}
    report |= network_figures(options.repeats)
    report["scatter"] = scatter_figures(4 * options.repeats)
    tell(report, options.output)


if __name__ == "__main__":
    main()
