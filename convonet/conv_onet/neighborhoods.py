"""Neighborhoods of points in plain torch: farthest points, balls, nearest three."""

from __future__ import annotations

import torch
from torch import Tensor


def distances(queries: Tensor, points: Tensor) -> Tensor:
    """Euclidean distances (B, Q, N) of (B, Q, 3) to (B, N, 3), by differences, so that equal points have 0."""
    if queries.requires_grad:  # the refinement of meshes needs second derivatives, which `cdist` lacks
        return torch.linalg.vector_norm(queries[:, :, None] - points[:, None], dim=3)  # type: ignore[no-any-return]
    return torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")


def take_points(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, N, C) at (B, ...) int64 indices: (B, ..., C)."""
    channels = values.shape[-1]
    flat = index.flatten(1)[..., None].expand(-1, -1, channels)
    return values.gather(1, flat).view(*index.shape, channels)


def farthest_points(points: Tensor, count: int, start: Tensor | None = None) -> Tensor:
    """Choose points one by one, each the farthest from those already chosen.

    Args:
        points: (B, N, 3).
        count: how many; where a cloud has fewer distinct points, some are chosen again.
        start: (B,) int64 first point of each cloud; by default the point of index 0. (The original draws it
            at random, in evaluation too.)

    Returns:
        (B, count) int64 indices.
    """
    batch = torch.arange(len(points), device=points.device)
    latest = torch.zeros_like(batch) if start is None else start
    nearest = points.new_full(points.shape[:2], torch.inf)
    chosen = []
    for _ in range(count):
        chosen.append(latest)
        gaps = (points - points[batch, latest][:, None]).square().sum(dim=-1)
        nearest = torch.minimum(nearest, gaps)
        latest = nearest.argmax(dim=1)
    return torch.stack(chosen, dim=1)


def points_in_ball(points: Tensor, centers: Tensor, radius: float, count: int) -> Tensor:
    """The first points, in order of index, within a radius of each center.

    Args:
        points: (B, N, 3).
        centers: (B, S, 3), each within `radius` of some point.
        radius: of the ball, its surface included.
        count: how many indices; where the ball holds fewer, its first repeats.

    Returns:
        (B, S, min(count, N)) int64 indices.
    """
    total = points.shape[1]
    order = torch.arange(total, device=points.device).expand(len(points), centers.shape[1], -1)
    outside = distances(centers, points) > radius
    first = order.masked_fill(outside, total).topk(min(count, total), dim=-1, largest=False).values
    return torch.where(first == total, first[..., :1], first)


def interpolate_three(queries: Tensor, points: Tensor, features: Tensor) -> Tensor:
    """Features at queries from their three nearest points, weighted by the inverse squared distance.

    Args:
        queries: (B, Q, 3).
        points: (B, N, 3); where N < 3, all of them count.
        features: (B, N, C).

    Returns:
        (B, Q, C).
    """
    near = distances(queries, points).topk(min(3, points.shape[1]), dim=-1, largest=False)
    weights = 1 / (near.values.square() + 1e-8)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return (take_points(features, near.indices) * weights[..., None]).sum(dim=2)
