"""Feature planes of crops: what a plane is, what shifts, what a batch is, and that training steps lower the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from convonet.layers.point_encoder import PointHints
from convonet.layers.voxel_unet import VoxelUNet
from convonet.planes import PlaneNetwork, PlaneNetworkConfig
from convonet.training import Criterion, CropBatch, TrainingConfig, TrainingState, train_step

SMALL = PlaneNetworkConfig(
    feature_size=8, encoder_hidden=8, encoder_blocks=2, unet_levels=2, decoder_hidden=8, decoder_blocks=2,
    crop_voxels=16,
)  # fmt: skip
GRID = (12, 16, 20)  # z, y, x


def random_network(**values: object) -> PlaneNetwork:
    torch.manual_seed(1)
    return replace(SMALL, **values).build().eval().requires_grad_(False)  # type: ignore[arg-type]


def drawn(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor(GRID[::-1])


@pytest.mark.parametrize("has_volume", [False, True])
def test_each_crop_of_a_batch_is_by_itself(has_volume: bool) -> None:
    network = random_network(has_volume=has_volume)
    clouds, queries = [drawn(200, 1), drawn(90, 2)], [drawn(30, 3), drawn(40, 4)]
    index = torch.tensor([0, 1])
    together = network(
        torch.cat(clouds), index.repeat_interleave(torch.tensor([200, 90])), 2, GRID,
        torch.cat(queries), index.repeat_interleave(torch.tensor([30, 40])),
    )  # fmt: skip
    zeros = torch.zeros(200, dtype=torch.int64)
    alone = [
        network(cloud, zeros[: len(cloud)], 1, GRID, asked, zeros[: len(asked)])
        for cloud, asked in zip(clouds, queries, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert together.std() > 1e-4


def test_a_plane_has_one_cell_along_its_normal() -> None:
    network = random_network(has_volume=True)
    features = network.encode(drawn(100, 1), torch.zeros(100, dtype=torch.int64), 1, GRID)
    depth, height, width = GRID
    assert [tuple(grid.shape[2:]) for grid in features.grids] == [
        (depth, 1, width), (1, height, width), (depth, height, 1), GRID,
    ]  # fmt: skip


def test_the_flat_u_net_is_a_u_net_of_two_dimensions() -> None:
    """Turning a plane by a quarter and the kernels with it turns the result; rows beside it do not exist."""
    torch.manual_seed(2)
    unet = VoxelUNet(4, 2, is_flat=True).eval().requires_grad_(False)
    plane = torch.randn(1, 4, 1, 8, 12)
    result = unet(plane)
    assert result.shape == plane.shape
    turned = VoxelUNet(4, 2, is_flat=True).eval().requires_grad_(False)
    turned.load_state_dict(
        {
            name: value.transpose(-1, -2) if value.dim() == 5 else value
            for name, value in unet.state_dict().items()
        }
    )
    torch.testing.assert_close(turned(plane.transpose(-1, -2)), result.transpose(-1, -2))


def test_hints_count_only_where_a_network_takes_them() -> None:
    points, asked = drawn(100, 1), drawn(20, 2)
    zeros = torch.zeros(100, dtype=torch.int64)
    hints = PointHints(torch.nn.functional.normalize(drawn(100, 3) - 8, dim=1), torch.full((100,), 1.5))
    for takes, network in ((True, random_network(has_hints=True)), (False, random_network())):
        with_them = network(points, zeros, 1, GRID, asked, zeros[:20], hints)
        without = network(points, zeros, 1, GRID, asked, zeros[:20])
        assert torch.equal(with_them, without) != takes


def test_training_steps_lower_the_loss_of_a_batch() -> None:
    torch.manual_seed(0)
    network = random_network(has_volume=True).train().requires_grad_(True)
    config = TrainingConfig(steps=40, learning_rate=1e-2, warmup_steps=2)
    state = TrainingState.fresh(network, config)
    points = 4 * torch.nn.functional.normalize(torch.randn(300, 3), dim=1)
    queries = 12 * torch.rand(500, 3) - 6
    middle = torch.tensor(GRID[::-1]) / 2
    batch = CropBatch(
        points + middle, torch.zeros(300, dtype=torch.int64), torch.zeros(300, 3), torch.full((300,), 3.0),
        queries + middle, torch.zeros(500, dtype=torch.int64), queries.norm(dim=1) - 4, 1, GRID,
    )  # fmt: skip
    losses = [train_step(Criterion(network), state, batch, config)["loss"] for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_what_no_network_can_be_is_refused() -> None:
    for values in ({"planes": ()}, {"planes": ("xz", "xz")}, {"planes": ("zz",)}, {"feature_size": 0}):
        with pytest.raises(ValueError, match="must be"):
            PlaneNetworkConfig(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiples of 2"):
        random_network().encode(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), 1, (3, 4, 4))
