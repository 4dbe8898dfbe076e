"""Networks at reduced width learn analytic shapes in seconds, and tell them apart."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from convonet.onet import PRESETS
from convonet.onet.latent_encoder import interpolate_latents
from convonet.onet.network import OccupancyNetwork

BALL_RADIUS, BOX_HALF, RING_RADIUS, TUBE_RADIUS = 0.35, (0.4, 0.22, 0.3), 0.3, 0.12


def ball(p: Tensor) -> Tensor:
    return p.norm(dim=-1) < BALL_RADIUS


def box(p: Tensor) -> Tensor:
    return (p.abs() < torch.tensor(BOX_HALF)).all(dim=-1)


def torus(p: Tensor) -> Tensor:
    ring = p[..., :2].norm(dim=-1) - RING_RADIUS
    return ring**2 + p[..., 2] ** 2 < TUBE_RADIUS**2


def surface_clouds(count: int, generator: torch.Generator) -> Tensor:
    """(3, count, 3) points on the ball's, the box's and the torus's surface."""
    direction = torch.randn(count, 3, generator=generator)
    on_ball = BALL_RADIUS * direction / direction.norm(dim=1, keepdim=True)
    half = torch.tensor(BOX_HALF)
    on_box = (2 * torch.rand(count, 3, generator=generator) - 1) * half
    axis = torch.randint(3, (count,), generator=generator)
    rows = torch.arange(count)
    on_box[rows, axis] = torch.sign(on_box[rows, axis]) * half[axis]
    around, across = 2 * torch.pi * torch.rand(2, count, generator=generator)
    radius = RING_RADIUS + TUBE_RADIUS * torch.cos(across)
    on_torus = torch.stack([radius * around.cos(), radius * around.sin(), TUBE_RADIUS * across.sin()], dim=1)
    return torch.stack([on_ball, on_box, on_torus])


def labelled(shapes: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(S, Q, 3) uniform queries in the padded cube and their exact occupancy."""
    queries = 1.1 * (torch.rand(shapes, count, 3, generator=generator) - 0.5)
    inside = [shape(queries[i]) for i, shape in enumerate((ball, box, torus)[:shapes])]
    return queries, torch.stack(inside).float()


def iou(logits: Tensor, occupancy: Tensor) -> Tensor:
    """(S,) intersection over union at probability 0.5."""
    predicted, true = logits > 0, occupancy > 0.5
    return (predicted & true).sum(1) / (predicted | true).sum(1)


def fit(network: OccupancyNetwork, inputs: list[Tensor], steps: int, rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    network.train()
    for step in range(steps):
        given = inputs[step % len(inputs)]
        queries, occupancy = labelled(len(given), 512, generator)
        optimiser.zero_grad()
        network.elbo(given, queries, occupancy, generator).loss.backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)


def test_the_point_cloud_network_learns_three_shapes() -> None:
    torch.manual_seed(0)
    preset = PRESETS["onet_pointcloud"]
    network = replace(preset, feature_size=32, encoder_hidden=32, decoder_hidden=48).build()
    generator = torch.Generator().manual_seed(1)
    clouds = [surface_clouds(100, generator) for _ in range(20)]
    fit(network, clouds, steps=400, rate=3e-3, seed=2)
    queries, occupancy = labelled(3, 20_000, generator)
    unseen = surface_clouds(100, generator)  # other points of the same surfaces
    quality = iou(network(unseen, queries), occupancy)
    assert quality.min() > 0.9, quality
    swapped = iou(network(unseen.roll(1, dims=0), queries), occupancy)  # the cloud decides the shape
    assert swapped.max() < 0.75, swapped


def test_the_unconditional_network_reconstructs_two_shapes_from_their_latents() -> None:
    torch.manual_seed(3)
    network = replace(
        PRESETS["onet_unconditional"], decoder_hidden=48, latent_size=8, latent_hidden=32
    ).build()
    generator = torch.Generator().manual_seed(4)
    nothing = torch.zeros(2, 0)
    fit(network, [nothing], steps=500, rate=4e-3, seed=5)
    queries, occupancy = labelled(2, 2_000, generator)
    latents = network.infer_latent(nothing, queries, occupancy).mean
    others, truth = labelled(2, 20_000, generator)
    quality = iou(network.decode(nothing, others, latents), truth)
    assert quality.min() > 0.9, quality
    assert iou(network.decode(nothing, others, latents.flip(0)), truth).max() < 0.85

    path = interpolate_latents(latents[0], latents[1], 5)
    grid = others[:1].expand(5, -1, -1)
    fields = network.decode(torch.zeros(5, 0), grid, path)
    as_ball, as_box = (iou(fields, shape(grid).float()) for shape in (ball, box))
    assert as_ball[0] > 0.9 > as_ball[4]
    assert as_box[4] > 0.9 > as_box[0]
    assert as_ball.argmax() <= 1
    assert as_box.argmax() >= 3
