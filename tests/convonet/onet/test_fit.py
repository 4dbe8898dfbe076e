"""Networks at reduced width learn analytic shapes in seconds, and tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from convonet.onet import PRESETS
from convonet.onet.latent_encoder import interpolate_latents
from convonet.onet.network import OccupancyNetwork

BALL_RADIUS, BOX_HALF, RING_RADIUS, TUBE_RADIUS = 0.35, (0.4, 0.22, 0.3), 0.3, 0.15
Shape = Callable[[Tensor], Tensor]


def ball(p: Tensor) -> Tensor:
    return p.norm(dim=-1) < BALL_RADIUS


def box(p: Tensor) -> Tensor:
    return (p.abs() < torch.tensor(BOX_HALF)).all(dim=-1)


def torus(p: Tensor) -> Tensor:
    ring = p[..., :2].norm(dim=-1) - RING_RADIUS
    return ring**2 + p[..., 2] ** 2 < TUBE_RADIUS**2


def ball_on_the_left(p: Tensor) -> Tensor:
    return ball(p + torch.tensor([0.15, 0.0, 0.0]))


def box_on_the_right(p: Tensor) -> Tensor:
    return ((p - torch.tensor([0.15, 0.0, 0.0])).abs() < torch.tensor([0.3, 0.4, 0.35])).all(dim=-1)


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


def labeled(shapes: list[Shape], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(S, Q, 3) uniform queries in the padded cube and their exact occupancy, one row for each shape."""
    queries = 1.1 * (torch.rand(len(shapes), count, 3, generator=generator) - 0.5)
    inside = [shape(positions) for shape, positions in zip(shapes, queries, strict=True)]
    return queries, torch.stack(inside).float()


def iou(logits: Tensor, occupancy: Tensor) -> Tensor:
    """(S,) intersection over union at probability 0.5."""
    predicted, true = logits > 0, occupancy > 0.5
    return (predicted & true).sum(1) / (predicted | true).sum(1)


def fit(
    network: OccupancyNetwork, inputs: list[Tensor], shapes: list[Shape], steps: int, rate: float
) -> None:
    """Train on 512 fresh queries of each shape a step, `inputs` in turn."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    network.train()
    for step in range(steps):
        queries, occupancy = labeled(shapes, 512, generator)
        optimizer.zero_grad()
        network.elbo(inputs[step % len(inputs)], queries, occupancy, generator).loss.backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)


def test_the_point_cloud_network_learns_three_shapes() -> None:
    torch.manual_seed(0)
    preset = PRESETS["onet_pointcloud"]
    network = replace(preset, feature_size=32, encoder_hidden=32, decoder_hidden=32).build()
    generator = torch.Generator().manual_seed(1)
    clouds, shapes = [surface_clouds(100, generator) for _ in range(200)], [ball, box, torus]
    fit(network, clouds, shapes, steps=700, rate=5e-3)
    queries, occupancy = labeled(shapes, 20_000, generator)
    unseen = surface_clouds(100, generator)  # other points of the same surfaces
    quality = iou(network(unseen, queries), occupancy)
    assert quality.min() > 0.9, quality
    swapped = iou(network(unseen.roll(1, dims=0), queries), occupancy)  # the cloud decides the shape
    assert swapped.max() < 0.75, swapped


def start_informative(network: OccupancyNetwork) -> None:
    """Start the latent's encoder so that the latent tells shapes apart in seconds instead of hours.

    PyTorch's default weights shrink what enters at each layer, which buries two shapes' difference in a
    posterior of deviation 1: He's weights keep it, and the posterior starts with deviation 0.14.
    """
    assert network.latent_encoder is not None
    for layer in network.latent_encoder.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    nn.init.constant_(network.latent_encoder.fc_logstd.bias, -2.0)


def test_the_unconditional_network_reconstructs_two_shapes_from_their_latents() -> None:
    torch.manual_seed(0)
    preset = PRESETS["onet_unconditional"]
    network = replace(preset, decoder_hidden=48, latent_size=8, latent_hidden=64).build()
    start_informative(network)
    nothing, shapes = torch.zeros(2, 0), [ball_on_the_left, box_on_the_right]
    fit(network, [nothing], shapes, steps=600, rate=4e-3)

    generator = torch.Generator().manual_seed(4)
    latents = network.infer_latent(nothing, *labeled(shapes, 512, generator)).mean
    queries, occupancy = labeled(shapes, 20_000, generator)
    quality = iou(network.decode(nothing, queries, latents), occupancy)
    assert quality.min() > 0.9, quality
    swapped = iou(network.decode(nothing, queries, latents.flip(0)), occupancy)  # latents decide the shape
    assert swapped.max() < 0.5, swapped

    path = interpolate_latents(latents[0], latents[1], 5)
    positions = queries[:1].expand(5, -1, -1)
    fields = network.decode(torch.zeros(5, 0), positions, path)
    as_ball, as_box = (iou(fields, shape(positions).float()) for shape in shapes)
    assert as_ball.argmax() <= 1
    assert as_box.argmax() >= 3
