"""Things to do with learned motions: fill in between given shapes, borrow a motion, walk the latent spaces.

All work on points; the points of a mesh are its vertices, and its faces stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from convonet.oflow.network import FlowCodes, OccupancyFlow


def interpolate_shapes(
    network: OccupancyFlow, codes: FlowCodes, first: Tensor, last: Tensor, times: Tensor
) -> Tensor:
    """Positions between two given shapes that correspond point by point.

    The first shape is carried forward and the last one backward; the two are blended linearly in time, so
    that both ends are met exactly (Niemeyer et al. 2019, section 4.4).

    Args:
        network: trained with correspondences in both directions.
        codes: of B pairs of shapes.
        first: (B, N, 3) points at t = 0.
        last: (B, N, 3) the same points at t = 1.
        times: (T,) in [0, 1], in any order.

    Returns:
        (B, T, N, 3) positions at `times`.

    Raises:
        ValueError: if the shapes do not correspond, or a time is outside [0, 1].
    """
    if first.shape != last.shape:
        raise ValueError(f"shapes of {tuple(first.shape)} and {tuple(last.shape)} points do not correspond")
    if bool(((times < 0) | (times > 1)).any()):
        raise ValueError("times must lie between 0 (the first shape) and 1 (the last shape)")
    ahead = network.transport(codes, first, times)
    behind = network.transport(codes, last, times, start=1.0)
    weight = times.to(first).view(1, -1, 1, 1)
    return ahead * (1 - weight) + behind * weight


def interpolate_keyframes(
    network: OccupancyFlow, clouds: Tensor, vertices: Tensor, steps_between: int
) -> Tensor:
    """A smooth sequence through several given shapes: every neighboring pair is interpolated.

    Args:
        network: with an encoder of the two end clouds.
        clouds: (K, N, 3) what the encoder sees of K >= 2 keyframes.
        vertices: (K, V, 3) corresponding points of the keyframes.
        steps_between: frames from one keyframe to the next, the latter included.

    Returns:
        (1 + (K - 1) * steps_between, V, 3) positions; every keyframe appears exactly.

    Raises:
        ValueError: if there are fewer than 2 keyframes or steps_between is not positive.
    """
    if len(clouds) < 2 or len(clouds) != len(vertices):
        raise ValueError(
            f"need 2 or more keyframes, each with a cloud and vertices: {len(clouds)}, {len(vertices)}"
        )
    if steps_between < 1:
        raise ValueError(f"steps_between must be positive, not {steps_between}")
    times = torch.linspace(0, 1, steps_between + 1, device=vertices.device)[1:]
    codes = network.encode(torch.stack([clouds[:-1], clouds[1:]], dim=1))
    between = interpolate_shapes(network, codes, vertices[:-1], vertices[1:], times)
    return torch.cat([vertices[:1], between.flatten(0, 1)])


def latent_path(
    first: FlowCodes,
    last: FlowCodes,
    count: int,
    vary: Literal["shape", "motion"],
    path: Literal["linear", "spherical"] = "linear",
) -> list[FlowCodes]:
    """Codes from one sequence to another that change the shape or the motion alone.

    Args:
        first: where the path starts; also the code that stays fixed.
        last: where it ends.
        count: number of codes, ends included.
        vary: "shape" walks z and keeps the motion of `first`; "motion" walks z_t and keeps its shape.
        path: "linear" as in the original, or "spherical", along the great circle, which keeps the length
            typical of draws from N(0, 1).

    Raises:
        ValueError: if count is less than 2, or the codes have no latent part.
    """
    if count < 2:
        raise ValueError(f"a path has at least its two ends, not {count} codes")
    if first.shape.shape[-1] == 0:
        raise ValueError("these codes have no latent part; use a network with latent_size > 0")
    blend = {"linear": linear_blend, "spherical": spherical_blend}[path]
    weights = torch.linspace(0, 1, count).tolist()
    if vary == "shape":
        return [replace(first, shape=blend(first.shape, last.shape, weight)) for weight in weights]
    return [replace(first, motion=blend(first.motion, last.motion, weight)) for weight in weights]


def linear_blend(first: Tensor, last: Tensor, weight: float) -> Tensor:
    """Straight line between (B, Z) codes."""
    return first * (1 - weight) + last * weight


def spherical_blend(first: Tensor, last: Tensor, weight: float) -> Tensor:
    """Great circle between the directions of (B, Z) codes (Shoemake 1985).

    Codes that point the same way are blended linearly; so are opposite ones, which no single great circle
    joins, and codes of no length.
    """
    lengths = first.norm(dim=-1, keepdim=True) * last.norm(dim=-1, keepdim=True)
    cosine = (first * last).sum(dim=-1, keepdim=True) / lengths.clamp(min=torch.finfo(first.dtype).tiny)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    is_flat = (sine < 1e-6) | (lengths == 0)
    safe = torch.where(is_flat, torch.ones_like(sine), sine)
    curved = (torch.sin((1 - weight) * angle) * first + torch.sin(weight * angle) * last) / safe
    return torch.where(is_flat, linear_blend(first, last, weight), curved)
