"""What tiling relies on: equivariance, locality, continuity; and the fast number format's error."""

from dataclasses import replace

import pytest
import torch

from convonet.precision import cpu_has_bf16_units, network_precision
from convonet.volume import VolumeNetwork, VolumeNetworkConfig

SMALL = VolumeNetworkConfig(
    feature_size=8, encoder_hidden=8, encoder_blocks=2, unet_levels=2, decoder_hidden=8, decoder_blocks=2
)


def random_network(config: VolumeNetworkConfig = SMALL) -> VolumeNetwork:
    torch.manual_seed(3)
    network = VolumeNetwork(config)
    for parameter in network.parameters():  # no zero layers: every path must carry signal
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval().requires_grad_(False)


def logits(network: VolumeNetwork, points: torch.Tensor, queries: torch.Tensor, side: int) -> torch.Tensor:
    zeros = torch.zeros(len(points), dtype=torch.int64)
    volume = network.encode(points, zeros, 1, (side, side, side))
    return network.decode(volume, queries, torch.zeros(len(queries), dtype=torch.int64))


def cloud(low: float, high: float, count: int = 400) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(5)) * (high - low) + low


def test_shifting_by_whole_pooling_cells_shifts_the_field_exactly() -> None:
    network, shift = random_network(), float(network_factor := 2)
    assert network.pooling_factor == network_factor
    points, queries = cloud(20, 28).double(), cloud(18, 30, 200).double()
    network = network.double()
    here = logits(network, points, queries, 48)
    there = logits(network, points + shift, queries + shift, 48)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-9)


def test_every_axis_shifts_by_itself_and_only_by_multiples_of_the_pooling_factor() -> None:
    network = random_network(replace(SMALL, unet_levels=3)).double()
    factor, side, low, high = network.pooling_factor, 56, 26, 30
    assert factor == 4
    steps = torch.tensor([[factor, 0, -factor], [0, -factor, factor], [1, 0, 0]]).double()
    assert low - factor > network.receptive_radius < side - high - factor  # clear of the border
    points, queries = cloud(low - 2, high + 2).double(), cloud(low, high, 100).double()
    here = logits(network, points, queries, side)
    along_xz, along_yz, odd = (logits(network, points + step, queries + step, side) for step in steps)
    torch.testing.assert_close(along_xz, here, rtol=0, atol=1e-9)
    torch.testing.assert_close(along_yz, here, rtol=0, atol=1e-9)
    assert (odd - here).abs().max() > 1e-3 * here.std()


def test_points_beyond_the_receptive_radius_change_nothing() -> None:
    network = random_network().double()
    radius, side = network.receptive_radius, 52
    query = torch.tensor([[32.3, 31.6, 32.9]], dtype=torch.float64)
    points = cloud(26, 39).double()

    def with_points_at(*distances: float) -> torch.Tensor:
        """One more point at each distance along x, and one along z."""
        steps = torch.tensor([step for d in distances for step in ([-d, 0, 0], [0, 0, d])]).double()
        return logits(network, torch.cat([points, query + steps.view(-1, 3)]), query, side)

    # Moved, they keep every product's shape and every voxel's row in it, so not a bit may change.
    beyond = with_points_at(radius + 1.5)
    assert torch.equal(beyond, with_points_at(radius + 8.2))
    # Without them the products have fewer rows, and a processor may sum a row in another order: float64's roundings.
    torch.testing.assert_close(beyond, with_points_at(), rtol=1e-12, atol=1e-12)
    assert (beyond - with_points_at(radius - 1.0)).abs() > 1e-6  # points within it do count


def test_a_larger_crop_gives_the_same_field_inside_the_halo() -> None:
    network = random_network().double()
    radius = network.receptive_radius
    halo = -(-radius // network.pooling_factor) * network.pooling_factor
    points, inner = cloud(0, 80, 4000).double(), 16
    low = 32
    queries = cloud(low, low + inner, 300).double()
    whole = logits(network, points, queries, 80)
    start, side = low - halo, inner + 2 * halo
    local = points - start
    local = local[((local >= 0) & (local < side)).all(dim=1)]
    cropped = logits(network, local, queries - start, side)
    torch.testing.assert_close(whole, cropped, rtol=0, atol=1e-9)


def test_the_field_is_continuous_across_voxel_faces() -> None:
    network = random_network().double()
    points = cloud(4, 12).double()
    faces = torch.tensor([[8.0, 7.3, 6.1], [7.3, 8.0, 6.6], [7.1, 6.2, 8.0]], dtype=torch.float64)
    below = logits(network, points, faces - 1e-9, 16)
    above = logits(network, points, faces + 1e-9, 16)
    torch.testing.assert_close(below, above, rtol=0, atol=1e-5)


@pytest.mark.skipif(not cpu_has_bf16_units(), reason="this processor has no bfloat16 units: float32 is used")
def test_bfloat16_decides_occupancy_as_float32_does() -> None:
    torch.manual_seed(0)
    network = VolumeNetwork(VolumeNetworkConfig()).eval().requires_grad_(False)
    points, queries = cloud(2, 30, 5000), cloud(0, 32, 20_000)
    exact = logits(network, points, queries, 32)
    with network_precision(torch.device("cpu")):
        fast = logits(network, points, queries, 32).float()
    spread = exact.std()
    decided = (exact - exact.median()).abs() > 0.1 * spread
    differs = ((exact > exact.median()) != (fast > exact.median())) & decided
    assert differs.float().mean() < 1e-3
    assert (fast - exact).abs().max() < 0.1 * spread + 0.1


def test_a_crop_that_does_not_fit_the_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        random_network().encode(cloud(0, 5), torch.zeros(400, dtype=torch.int64), 1, (7, 8, 8))


def test_queries_that_keep_from_the_faces_need_less_and_get_the_same() -> None:
    network = random_network(replace(SMALL, unet_levels=3)).double()
    points, side, margin = cloud(2, 30).double(), 32, 9
    queries = margin + (side - 2 * margin) * torch.rand(300, 3, dtype=torch.float64)
    queries[0], queries[1] = margin, side - margin
    point_crop, query_crop = (torch.zeros(len(rows), dtype=torch.int64) for rows in (points, queries))
    whole = network.encode(points, point_crop, 1, (side, side, side))
    inner = network.encode(points, point_crop, 1, (side, side, side), margin=margin)
    assert inner.volume.numel() < whole.volume.numel() / 5
    found = network.decode(inner, queries, query_crop)
    torch.testing.assert_close(found, network.decode(whole, queries, query_crop), rtol=0, atol=1e-9)
