"""Farthest points, balls and nearest three, against brute force."""

import torch

from convonet.conv_onet.neighborhoods import (
    distances,
    farthest_points,
    interpolate_three,
    points_in_ball,
    take_points,
)


def cloud(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_equal_points_have_distance_zero() -> None:
    points = cloud(60) + 100.0
    assert torch.equal(distances(points, points).diagonal(dim1=1, dim2=2), torch.zeros(2, 60))


def test_each_farthest_point_is_the_farthest_from_those_before() -> None:
    points = cloud(50)
    chosen = farthest_points(points, 12, start=torch.tensor([3, 7]))
    assert chosen[:, 0].tolist() == [3, 7]
    for item in (0, 1):
        for count in range(1, 12):
            before = points[item, chosen[item, :count]]
            gaps = [min(float((p - q).norm()) for q in before) for p in points[item]]
            assert gaps[int(chosen[item, count])] == max(gaps)
    assert farthest_points(points, 1).tolist() == [[0], [0]]


def test_few_points_are_chosen_again() -> None:
    chosen = farthest_points(cloud(3), 5)
    assert chosen.shape == (2, 5)
    assert {tuple(sorted(set(row))) for row in chosen.tolist()} == {(0, 1, 2)}


def test_a_ball_holds_its_first_points_by_index_and_repeats_the_first() -> None:
    points = cloud(80)
    centers = points[:, 10:20]
    members = points_in_ball(points, centers, 0.3, 6)
    for item in (0, 1):
        for center, found in zip(centers[item], members[item].tolist(), strict=True):
            inside = [i for i, p in enumerate(points[item]) if float((p - center).norm()) <= 0.3][:6]
            assert found == inside + [inside[0]] * (6 - len(inside))


def test_three_nearest_are_weighted_by_the_inverse_square() -> None:
    points, queries = cloud(40), cloud(9, seed=1)
    features = torch.randn(2, 40, 5, generator=torch.Generator().manual_seed(2))
    computed = interpolate_three(queries, points, features)
    for item in (0, 1):
        for query, value in zip(queries[item], computed[item], strict=True):
            squared = [float(((p - query) ** 2).sum()) for p in points[item]]
            nearest = sorted(range(40), key=lambda i: squared[i])[:3]
            weights = torch.tensor([1 / (squared[i] + 1e-8) for i in nearest])
            torch.testing.assert_close(value, (weights / weights.sum()) @ features[item, nearest])
    at_points = interpolate_three(points, points, features)
    torch.testing.assert_close(at_points, features, rtol=1e-3, atol=1e-3)


def test_rows_are_taken_from_their_own_item() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    index = torch.tensor([[[0, 2]], [[1, 1]]])
    assert take_points(values, index).tolist() == [[[[0, 1], [4, 5]]], [[[8, 9], [8, 9]]]]
