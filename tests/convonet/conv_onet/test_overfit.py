"""Each network for points learns three shapes at once, from their points alone, in seconds.

Reduced in width, resolution and depth, never in kind. The occupancy is exact; the score is the intersection over
union at fresh uniform queries, in evaluation mode.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convonet.conv_onet import PRESETS, ConvOnet, ConvOnetConfig, CropInputs

# room_grid32 is shapenet_grid32, as the last test holds; the partial preset gets partial clouds
POINT_PRESETS = [name for name in PRESETS if not name.startswith("voxel") and name != "room_grid32"]
HALF_BOX = torch.tensor([0.42, 0.25, 0.33])
BALL, RING, TUBE = 0.4, 0.28, 0.18
BATCH = 3


def occupancy(queries: Tensor) -> Tensor:
    """(3, Q, 3) to (3, Q): a ball, a box and a torus around the y axis."""
    ball, box, torus = queries
    from_ring = torus[:, [0, 2]].norm(dim=1) - RING
    return torch.stack(
        [
            ball.norm(dim=1) < BALL,
            (box.abs() < HALF_BOX).all(dim=1),
            from_ring**2 + torus[:, 1] ** 2 < TUBE**2,
        ]
    )


def surface_points(count: int, generator: torch.Generator) -> Tensor:
    """(3, count, 3) points on the three surfaces."""
    direction = torch.randn(count, 3, generator=generator)
    ball = BALL * direction / direction.norm(dim=1, keepdim=True)
    box = (2 * torch.rand(count, 3, generator=generator) - 1) * HALF_BOX
    face_area = HALF_BOX.prod() / HALF_BOX
    axis = torch.multinomial(face_area, count, replacement=True, generator=generator)
    side = 2.0 * torch.randint(0, 2, (count,), generator=generator) - 1
    box[torch.arange(count), axis] = side * HALF_BOX[axis]
    around, along = 2 * torch.pi * torch.rand(2, count, generator=generator)
    radius = RING + TUBE * torch.cos(around)
    torus = torch.stack(
        [radius * torch.cos(along), TUBE * torch.sin(around), radius * torch.sin(along)], dim=1
    )
    return torch.stack([ball, box, torus])


def reduced(config: ConvOnetConfig) -> ConvOnetConfig:
    return replace(
        config,
        feature_size=16,
        encoder_hidden=16,
        encoder_blocks=3,
        plane_resolution=16,
        volume_resolution=16,
        unet2d_levels=max(0, config.unet2d_levels - 1),
        unet2d_channels=8,
        unet3d_levels=max(0, config.unet3d_levels - 1),
        unet3d_channels=8,
        decoder_hidden=min(40, config.decoder_hidden),
        decoder_blocks=3,
        unit_size=1.2 / 16,
        pointnetpp_width=16,
        fine_centers=64,
        fine_neighbors=8,
        coarse_centers=16,
        coarse_neighbors=8,
        gaussian_width=0.15,
    )


def network_inputs(preset: str, config: ConvOnetConfig, generator: torch.Generator) -> Tensor | CropInputs:
    points = surface_points(300, generator)
    if preset.endswith(
        "partial"
    ):  # a quarter of each shape is unseen; its occupancy is asked for all the same
        return points[points[..., 0] < points[..., 0].quantile(0.75, dim=1, keepdim=True)].view(BATCH, -1, 3)
    if config.family == "crops":
        corner = torch.full((BATCH, 3), 0.6)
        return CropInputs.in_boxes(points, -corner, corner, 16, config.projections)
    return points


def intersection_over_union(network: ConvOnet, inputs: Tensor | CropInputs, queries: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        inside = network(inputs, queries) > 0
    network.train()
    truth = occupancy(queries)
    return (inside & truth).sum(dim=1) / (inside | truth).sum(dim=1)


@pytest.mark.parametrize("preset", POINT_PRESETS)
def test_three_shapes_are_learned_from_their_points(preset: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    config = reduced(PRESETS[preset])
    network = config.build()
    inputs = network_inputs(preset, config, generator)
    held_out, final = torch.rand(2, BATCH, 8000, 3, generator=generator) - 0.5
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2 if config.family == "pointconv" else 5e-3)
    for step in range(1, 501):
        anywhere = torch.rand(BATCH, 350, 3, generator=generator) - 0.5
        nearby = surface_points(200, generator) + 0.05 * torch.randn(BATCH, 200, 3, generator=generator)
        queries = torch.cat([anywhere, nearby], dim=1)
        loss = F.binary_cross_entropy_with_logits(network(inputs, queries), occupancy(queries).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            if intersection_over_union(network, inputs, held_out).min() > 0.915:
                break
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
    assert intersection_over_union(network, inputs, final).min() > 0.9


def test_the_only_preset_not_trained_here_equals_one_that_is() -> None:
    assert PRESETS["room_grid32"] == PRESETS["shapenet_grid32"]
