"""The originals' crop networks in voxel units of a scene: the same logits as in scene units, whatever the box."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from convonet.conv_onet import PRESETS, ConvOnet, ConvOnetConfig, CropInputs
from convonet.conv_onet.scene_crops import SceneCrops
from convonet.errors import WeightsError

UNIT = 0.02
CONFIG = ConvOnetConfig(
    "crops", ("grid",), feature_size=8, encoder_hidden=8, encoder_blocks=2, unet3d_levels=2, unet3d_channels=8,
    decoder_hidden=8, decoder_blocks=2, unit_size=UNIT, query_voxels=8,
)  # fmt: skip


def random_network(config: ConvOnetConfig = CONFIG) -> ConvOnet:
    torch.manual_seed(3)
    network = config.build()
    for parameter in network.parameters():  # no residual block at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def drawn(side: int, count: int, seed: int) -> Tensor:
    """(N, 3) positions in a box of voxels, clear of the voxels' faces."""
    generator = torch.Generator().manual_seed(seed)
    voxels = torch.randint(side, (count, 3), generator=generator)
    return voxels + 0.05 + 0.9 * torch.rand(count, 3, generator=generator)


@pytest.mark.parametrize("encoding", ["linear", "sin_cos"])
@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (12.25, -3.5, 7.75)], ids=str)
def test_logits_are_those_of_the_network_in_scene_units(
    encoding: Any, origin: tuple[float, float, float]
) -> None:
    network = random_network(replace(CONFIG, encoding=encoding))
    side = network.config.crop_resolution
    points, queries = [drawn(side, 200, seed) for seed in (1, 2)], [drawn(side, 50, seed) for seed in (3, 4)]
    corner = torch.tensor(origin, dtype=torch.float64)
    found = SceneCrops(network).at_origin(origin)
    crops = torch.arange(2)
    logits = found(
        torch.cat(points), crops.repeat_interleave(200), 2, (side, side, side),
        torch.cat(queries), crops.repeat_interleave(50),
    )  # fmt: skip
    network.double()
    for crop in range(2):
        seen, asked = ((UNIT * (corner + part[crop].double()))[None] for part in (points, queries))
        lower = (UNIT * corner)[None]
        inputs = CropInputs.in_boxes(seen, lower, lower + side * UNIT, side)
        expected = network(inputs, asked)[0].float()
        assert expected.std() > 0.01
        bound = (
            1e-4 if encoding == "linear" else 1e-3
        )  # the tenth octave multiplies what float32 rounds by 1,600
        torch.testing.assert_close(logits[50 * crop : 50 * crop + 50], expected, rtol=0, atol=bound)


def test_a_crop_may_have_any_sides() -> None:
    """Sides of 24, 20 and 16 voxels: the points of one corner give what they give in a cube, far from the rest."""
    network = SceneCrops(random_network(replace(CONFIG, unet3d_levels=0)))
    points = drawn(16, 300, 1)
    queries = drawn(14, 40, 2) + 1
    one = torch.zeros(300, dtype=torch.int64)
    volume = network.encode(points, one, 1, (16, 20, 24))
    cube = network.encode(points, one, 1, (16, 16, 16))
    assert volume.shape == (1, 8, 16, 20, 24)
    assert torch.equal(volume[..., :16, :16], cube)
    assert torch.isfinite(
        network.decode(network.encode(points, one, 1, (16, 20, 24)), queries, one[:40])
    ).all()


def test_the_published_network_sees_as_much_as_the_original_s() -> None:
    network = SceneCrops(PRESETS["crop_room_grid64"].build())  # type: ignore[arg-type]
    assert (network.pooling_factor, network.tile_voxels, network.threshold) == (8, 24, 0.2)
    assert network.receptive_radius + 4 == 32
    assert network.voxel_side == 0.005
    with pytest.raises(ValueError, match="multiples of 8"):
        network.encode(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), 1, (88, 88, 90))


def test_networks_of_objects_and_of_absolute_positions_are_refused() -> None:
    for config in (replace(CONFIG, local_coordinates=False), replace(CONFIG, projections=("grid", "xz"))):
        with pytest.raises(WeightsError, match="coordinates within voxels"):
            SceneCrops(config.build())
