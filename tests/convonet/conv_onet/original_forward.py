"""The original networks once more, as straight-line arithmetic on state dicts with the original's names.

Written for clarity: one item at a time, points and queries in loops, numpy where a loop is clearest. Only the
convolutions are torch's. Nothing of the code under test is called.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
PLANES = {"xz": (0, 2), "xy": (0, 1), "yz": (1, 2)}


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def dense(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def resnet_block(x: Tensor, state: State, name: str) -> Tensor:
    dx = dense(relu(dense(relu(x), state, f"{name}.fc_0")), state, f"{name}.fc_1")
    shortcut = state.get(f"{name}.shortcut.weight")
    return (x if shortcut is None else x @ shortcut.T) + dx


# coordinates


def unit_coordinate(point: np.ndarray, kind: str) -> np.ndarray:
    """One float32 position, projected and scaled to [0, 1) with padding 0.1."""
    margin = 10e-4 if kind == "grid" else 10e-6
    axes = (0, 1, 2) if kind == "grid" else PLANES[kind]
    scaled = point[list(axes)] / np.float32(1 + 0.1 + margin) + np.float32(0.5)
    return np.where(scaled >= 1, np.float32(1 - margin), np.where(scaled < 0, np.float32(0), scaled))


def cell_of(coordinate: np.ndarray, resolution: int) -> tuple[int, ...]:
    """Cell of a scaled position, in the order of the tensor's axes: last coordinate first."""
    return tuple(int(c) for c in reversed(np.floor(coordinate * np.float32(resolution))))


# point encoder


def group_by_cell(cells: list[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    members: dict[tuple[int, ...], list[int]] = {}
    for i, cell in enumerate(cells):
        members.setdefault(cell, []).append(i)
    return members


def pooled_point_features(positions: Tensor, cells: dict[str, list[tuple[int, ...]]], state: State) -> Tensor:
    """(N, 3) positions to (N, C); between blocks, the maximum over each cell of each grid, added up."""
    blocks = len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})
    x = resnet_block(dense(positions, state, "encoder.fc_pos"), state, "encoder.blocks.0")
    for block in range(1, blocks):
        pooled = torch.zeros_like(x)
        for of_points in cells.values():
            for members in group_by_cell(of_points).values():
                pooled[members] += x[members].max(dim=0).values
        x = resnet_block(torch.cat([x, pooled], dim=1), state, f"encoder.blocks.{block}")
    return dense(x, state, "encoder.fc_c")


def scatter_average(features: Tensor, cells: list[tuple[int, ...]], resolution: int) -> Tensor:
    """(C, R, ..., R): the mean feature of each cell, 0 where a cell is empty."""
    grid = torch.zeros(features.shape[1], *([resolution] * len(cells[0])))
    for cell, members in group_by_cell(cells).items():
        grid[(slice(None), *cell)] = sum(features[i] for i in members) / len(members)
    return grid


# U-Nets


def unet2d(plane: Tensor, state: State) -> Tensor:
    def conv(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"encoder.unet.{name}.weight"], state[f"encoder.unet.{name}.bias"]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    depth = len({name for name in state if ".unet.down_convs." in name and name.endswith("conv1.weight")})
    x, skips = plane[None], []
    for i in range(depth):
        x = relu(conv(x, f"down_convs.{i}.conv1"))
        x = relu(conv(x, f"down_convs.{i}.conv2"))
        skips.append(x)
        if i < depth - 1:
            x = torch.stack([x[..., a::2, b::2] for a in (0, 1) for b in (0, 1)]).max(dim=0).values
    for i in range(depth - 1):
        name = f"encoder.unet.up_convs.{i}.upconv"
        x = F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
        x = torch.cat([x, skips[depth - 2 - i]], dim=1)
        x = relu(conv(x, f"up_convs.{i}.conv1"))
        x = relu(conv(x, f"up_convs.{i}.conv2"))
    return conv(x, "conv_final")[0]


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(C, D, H, W); eight groups, one where there are fewer channels."""
    groups = 8 if len(x) >= 8 else 1
    parts = []
    for part in x.chunk(groups):
        mean = part.mean()
        parts.append((part - mean) / torch.sqrt(((part - mean) ** 2).mean() + 1e-5))
    return torch.cat(parts) * weight[:, None, None, None] + bias[:, None, None, None]


def unet3d(volume: Tensor, state: State) -> Tensor:
    def single_conv(x: Tensor, name: str) -> Tensor:
        name = f"encoder.unet3d.{name}"
        x = group_norm(x, state[f"{name}.groupnorm.weight"], state[f"{name}.groupnorm.bias"])
        return relu(F.conv3d(x[None], state[f"{name}.conv.weight"], padding=1)[0])

    def double_conv(x: Tensor, name: str) -> Tensor:
        return single_conv(single_conv(x, f"{name}.SingleConv1"), f"{name}.SingleConv2")

    levels = len({name.split(".")[3] for name in state if name.startswith("encoder.unet3d.encoders.")})
    x, skips = volume, []
    for i in range(levels):
        if i > 0:
            corners = [x[:, a::2, b::2, c::2] for a, b, c in product((0, 1), repeat=3)]
            x = torch.stack(corners).max(dim=0).values
        x = double_conv(x, f"encoders.{i}.basic_module")
        skips.append(x)
    for i in range(levels - 1):
        for axis in (1, 2, 3):
            x = x.repeat_interleave(2, dim=axis)
        x = double_conv(torch.cat([skips[levels - 2 - i], x]), f"decoders.{i}.basic_module")
    weight, bias = state["encoder.unet3d.final_conv.weight"], state["encoder.unet3d.final_conv.bias"]
    return F.conv3d(x[None], weight, bias)[0]


# sampling and decoding


def sample_linear(grid: Tensor, coordinate: np.ndarray) -> Tensor:
    """Interpolate (C, R, ..., R) at one scaled position; 0 and 1 are the centers of the outermost cells."""
    side = grid.shape[-1]
    result = torch.zeros(len(grid))
    along = [min(max(float(c), 0.0), 1.0) * (side - 1) for c in reversed(coordinate)]
    for corner in product((0, 1), repeat=len(along)):
        weight, cell = 1.0, []
        for position, step in zip(along, corner, strict=True):
            low = min(math.floor(position), side - 2)
            weight *= (position - low) if step else (low + 1 - position)
            cell.append(low + step)
        result += weight * grid[(slice(None), *cell)]
    return result


def decode(positions: Tensor, features: Tensor, state: State) -> Tensor:
    """(Q, 3) coordinates and (Q, C) features to (Q,) logits."""
    x = dense(positions, state, "decoder.fc_p")
    for block in range(
        len({name for name in state if name.startswith("decoder.fc_c.") and "weight" in name})
    ):
        x = x + dense(features, state, f"decoder.fc_c.{block}")
        x = resnet_block(x, state, f"decoder.blocks.{block}")
    return dense(relu(x), state, "decoder.fc_out")[:, 0]


# whole networks, one item


def complete(grids: dict[str, Tensor], state: State) -> dict[str, Tensor]:
    return {kind: (unet3d if kind == "grid" else unet2d)(grid, state) for kind, grid in grids.items()}


def decode_unit_cube(queries: Tensor, grids: dict[str, Tensor], state: State) -> Tensor:
    features = [
        sum(sample_linear(grid, unit_coordinate(query, kind)) for kind, grid in grids.items())
        for query in queries.numpy()
    ]
    return decode(queries, torch.stack(features), state)


def points_network(points: Tensor, queries: Tensor, state: State, resolutions: dict[str, int]) -> Tensor:
    """LocalPoolPointnet and LocalDecoder: (N, 3) points and (Q, 3) queries to (Q,) logits."""
    cells = {
        kind: [cell_of(unit_coordinate(point, kind), side) for point in points.numpy()]
        for kind, side in resolutions.items()
    }
    features = pooled_point_features(points, cells, state)
    grids = {kind: scatter_average(features, cells[kind], side) for kind, side in resolutions.items()}
    return decode_unit_cube(queries, complete(grids, state), state)


def voxels_network(voxels: Tensor, queries: Tensor, state: State, resolutions: dict[str, int]) -> Tensor:
    """LocalVoxelEncoder and LocalDecoder: (D, H, W) voxels and (Q, 3) queries to (Q,) logits."""
    weight, bias = state["encoder.conv_in.weight"], state["encoder.conv_in.bias"]
    convolved = relu(F.conv3d(voxels[None, None], weight, bias, padding=1))[0]
    sides = voxels.shape
    where, features = [], []
    for i, j, k in product(*(range(side) for side in sides)):
        steps = [index / (side - 1) for index, side in zip((i, j, k), sides, strict=True)]
        where.append(np.array([step - 0.5 for step in steps], dtype=np.float32))
        features.append(convolved[:, i, j, k])
    grids = {
        kind: scatter_average(
            torch.stack(features), [cell_of(unit_coordinate(point, kind), side) for point in where], side
        )
        for kind, side in resolutions.items()
    }
    return decode_unit_cube(queries, complete(grids, state), state)


def crop_network(
    points: Tensor, queries: Tensor, state: State, lower: Tensor, upper: Tensor, resolution: int, unit: float
) -> Tensor:
    """PatchLocalPoolPointnet and PatchLocalDecoder with a volume; points outside the box are left out."""
    inside = ((points >= lower) & (points < upper)).all(dim=1)
    points = points[inside]
    low, high = lower.numpy(), upper.numpy()

    def local(positions: Tensor) -> Tensor:
        return torch.remainder(positions, unit) / unit

    cells = [cell_of((point - low) / (high - low), resolution) for point in points.numpy()]
    features = pooled_point_features(local(points), {"grid": cells}, state)
    volume = unet3d(scatter_average(features, cells, resolution), state)
    sampled = [sample_linear(volume, (query - low) / (high - low)) for query in queries.numpy()]
    return decode(local(queries), torch.stack(sampled), state)


# PointNet++


def shared_layers(x: Tensor, state: State, name: str) -> Tensor:
    """(M, C) rows through linear, batch norm (evaluation) and rectifier."""
    for i in range(len([n for n in state if n.startswith(f"{name}.mlp_convs.") and n.endswith("bias")])):
        weight = state[f"{name}.mlp_convs.{i}.weight"].flatten(1)
        x = x @ weight.T + state[f"{name}.mlp_convs.{i}.bias"]
        norm = f"{name}.mlp_bns.{i}"
        x = (x - state[f"{norm}.running_mean"]) / torch.sqrt(state[f"{norm}.running_var"] + 1e-5)
        x = relu(x * state[f"{norm}.weight"] + state[f"{norm}.bias"])
    return x


def farthest(points: Tensor, count: int) -> list[int]:
    chosen = [0]
    gap = ((points - points[0]) ** 2).sum(dim=1).numpy()
    while len(chosen) < count:
        latest = int(np.argmax(gap))
        chosen.append(latest)
        gap = np.minimum(gap, ((points - points[latest]) ** 2).sum(dim=1).numpy())
    return chosen


def set_abstraction(
    points: Tensor, features: Tensor, count: int, radius: float, neighbors: int, state: State, name: str
) -> tuple[Tensor, Tensor]:
    centers = points[farthest(points, count)]
    pooled = []
    for center in centers:
        distance = torch.sqrt(((points - center) ** 2).sum(dim=1))
        members = (distance <= radius).nonzero()[:neighbors, 0]
        rows = torch.cat([points[members] - center, features[members]], dim=1)
        pooled.append(shared_layers(rows, state, name).max(dim=0).values)
    return centers, torch.stack(pooled)


def propagate(queries: Tensor, points: Tensor, features: Tensor) -> Tensor:
    rows = []
    for query in queries:
        squared = ((points - query) ** 2).sum(dim=1)
        nearest = squared.argsort()[:3]
        weight = 1 / (squared[nearest] + 1e-8)
        rows.append((weight / weight.sum()) @ features[nearest])
    return torch.stack(rows)


def pointconv_network(points: Tensor, queries: Tensor, state: State, width: float) -> Tensor:
    """PointNetPlusPlus and LocalPointDecoder with the Gaussian kernel, in evaluation mode."""
    fine, fine_features = set_abstraction(points, points, 512, 0.2, 32, state, "encoder.sa1")
    coarse, coarse_features = set_abstraction(fine, fine_features, 128, 0.4, 64, state, "encoder.sa2")
    rows = shared_layers(torch.cat([coarse, coarse_features], dim=1), state, "encoder.sa3")
    whole = rows.max(dim=0).values.expand(len(coarse), -1)
    at_coarse = shared_layers(torch.cat([coarse_features, whole], dim=1), state, "encoder.fp3")
    at_fine = torch.cat([fine_features, propagate(fine, coarse, at_coarse)], dim=1)
    at_fine = shared_layers(at_fine, state, "encoder.fp2")
    features = shared_layers(propagate(points, fine, at_fine), state, "encoder.fp1")
    sampled = []
    for query in queries:
        distance = torch.sqrt(((points - query) ** 2).sum(dim=1)) + 10e-6
        weight = torch.exp(-(distance**2) / width**2)
        sampled.append((weight / weight.sum()) @ features)
    return decode(queries, torch.stack(sampled), state)
