"""Sampling grids and interpolating between points, against loops and closed forms."""

import math

import pytest
import torch

from convonet.conv_onet import point_decoder
from convonet.conv_onet.local_decoder import ConditionedBlocks, LocalDecoder, sample_grid
from convonet.conv_onet.point_decoder import LocalPointDecoder, interpolate_features
from convonet.conv_onet.pointnetpp import PointFeatures
from tests.convonet.conv_onet import original_forward


def grid_of(dims: int, side: int = 5) -> torch.Tensor:
    return torch.randn(2, 3, *([side] * dims), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dims", [2, 3])
def test_linear_sampling_agrees_with_a_sum_over_corners(dims: int) -> None:
    grid = grid_of(dims)
    where = torch.rand(2, 40, dims, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
    sampled = sample_grid(grid, where, "linear")
    for item in (0, 1):
        expected = [original_forward.sample_linear(grid[item], position.numpy()) for position in where[item]]
        torch.testing.assert_close(sampled[item], torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_nearest_sampling_takes_the_nearest_center(dims: int) -> None:
    grid = grid_of(dims)
    where = torch.rand(2, 40, dims, generator=torch.Generator().manual_seed(2))
    sampled = sample_grid(grid, where, "nearest")
    for item in (0, 1):
        for position, value in zip(where[item], sampled[item], strict=True):
            cell = [round(float(c) * 4) for c in reversed(position)]
            assert torch.equal(value, grid[(item, slice(None), *cell)])


@pytest.mark.parametrize("dims", [2, 3])
def test_grids_in_half_precision_are_read_at_exact_positions(dims: int) -> None:
    grid = grid_of(dims, 64).bfloat16()
    where = torch.rand(2, 40, dims, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample_grid(grid, where, "linear"), sample_grid(grid.float(), where, "linear"))


def test_features_of_all_grids_are_added() -> None:
    decoder = LocalDecoder(ConditionedBlocks(3, 3, 8, 2), 0.1).requires_grad_(False)
    plane, volume = grid_of(2), grid_of(3)
    queries = torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(3)) - 0.5
    constant = {"xz": torch.full_like(plane, 0.25), "grid": torch.full_like(volume, 0.5)}
    together = decoder(queries, constant)
    alone = decoder(queries, {"grid": torch.full_like(volume, 0.75)})
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, decoder(queries, {"grid": torch.full_like(volume, 0.5)}))


def cloud_of(points: int) -> PointFeatures:
    generator = torch.Generator().manual_seed(4)
    return PointFeatures(
        torch.rand(2, points, 3, generator=generator) - 0.5, torch.randn(2, points, 6, generator=generator)
    )


@pytest.mark.parametrize("kernel", ["gaussian", "inverse"])
def test_interpolation_is_a_weighted_mean_of_all_points(kernel: point_decoder.Kernel) -> None:
    cloud = cloud_of(20)
    queries = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(5)) - 0.5
    computed = interpolate_features(queries, cloud, kernel, 0.2)
    for item in (0, 1):
        for query, value in zip(queries[item], computed[item], strict=True):
            gaps = [math.dist(query.tolist(), point.tolist()) + 1e-5 for point in cloud.points[item]]
            weights = [math.exp(-(gap**2) / 0.2**2) if kernel == "gaussian" else 1 / gap for gap in gaps]
            expected = sum(w * f for w, f in zip(weights, cloud.features[item], strict=True)) / sum(weights)
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_far_queries_take_the_nearest_point_instead_of_nothing() -> None:
    cloud = cloud_of(20)
    query = torch.tensor([[[40.0, 0.0, 0.0]]]).expand(2, -1, -1)
    features = interpolate_features(query, cloud, "gaussian", 0.05)
    assert torch.isfinite(features).all()
    for item in (0, 1):
        nearest = int(torch.tensor([math.dist((40, 0, 0), p.tolist()) for p in cloud.points[item]]).argmin())
        torch.testing.assert_close(features[item, 0], cloud.features[item, nearest], rtol=1e-2, atol=1e-2)


def test_decoding_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = LocalPointDecoder(ConditionedBlocks(3, 6, 8, 2)).requires_grad_(False)
    cloud = cloud_of(30)
    queries = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(6)) - 0.5
    whole = decoder(queries, cloud)
    monkeypatch.setattr(point_decoder, "WEIGHTS_AT_ONCE", 2 * 30 * 7)
    torch.testing.assert_close(decoder(queries, cloud), whole, rtol=1e-5, atol=1e-6)
