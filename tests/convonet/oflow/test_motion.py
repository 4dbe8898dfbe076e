"""Filling in between shapes, borrowing motions, walking latent spaces: against closed forms."""

from dataclasses import replace

import pytest
import torch

from convonet.oflow.motion import (
    interpolate_keyframes,
    interpolate_shapes,
    latent_path,
    linear_blend,
    spherical_blend,
)
from tests.convonet.oflow.test_losses import SHIFT, shifting_network
from tests.convonet.oflow.test_network import SMALL, cloud, random_network


def test_interpolation_blends_the_way_forward_with_the_way_back() -> None:
    network = shifting_network()
    codes = network.encode(cloud(2, 4, 20, 3))
    first, last = cloud(2, 12, 3, seed=1), cloud(2, 12, 3, seed=2)
    times = torch.tensor([0.5, 0.0, 1.0, 0.25])
    between = interpolate_shapes(network, codes, first, last, times)
    for index, time in enumerate(times.tolist()):
        expected = (1 - time) * (first + time * SHIFT) + time * (last - (1 - time) * SHIFT)
        torch.testing.assert_close(between[:, index], expected, rtol=0, atol=1e-8)
    assert torch.equal(between[:, 1], first)
    assert torch.equal(between[:, 2], last)


def test_keyframes_appear_exactly_with_frames_between_them() -> None:
    config = replace(SMALL, spatial_encoder=None, temporal_encoder="pointnet_pair", decoder=None)
    network, clouds, vertices = random_network(config), cloud(3, 20, 3), cloud(3, 9, 3, seed=1)
    frames = interpolate_keyframes(network, clouds, vertices, steps_between=4)
    assert frames.shape == (9, 9, 3)
    for keyframe in range(3):
        torch.testing.assert_close(frames[4 * keyframe], vertices[keyframe], rtol=0, atol=1e-12)
    codes = network.encode(torch.stack([clouds[1:2], clouds[2:3]], dim=1))
    middle = interpolate_shapes(network, codes, vertices[1:2], vertices[2:3], torch.tensor([0.5]))
    torch.testing.assert_close(frames[6], middle[0, 0], rtol=0, atol=1e-6)


def test_a_borrowed_motion_moves_another_shape_as_its_own_sequence() -> None:
    network = random_network(replace(SMALL, latent_size=5))
    source = network.encode(cloud(1, 4, 20, 3))
    target, times = cloud(1, 12, 3, seed=1), torch.tensor([0.5, 1.0])
    moved = network.transport(source, target, times)
    elsewhere = network.encode(cloud(1, 4, 20, 3, seed=9))
    assert torch.equal(moved, network.transport(elsewhere.moving_like(source), target, times))
    assert not torch.equal(moved, network.transport(elsewhere, target, times))


@pytest.mark.parametrize("vary", ["shape", "motion"])
def test_a_latent_path_changes_one_code_and_meets_both_ends(vary: str) -> None:
    network = random_network(replace(SMALL, latent_size=5))
    first, last = (network.encode(cloud(1, 4, 20, 3, seed=seed)) for seed in (1, 2))
    path = latent_path(first, last, 5, vary)  # type: ignore[arg-type]
    fixed = {"shape": "motion", "motion": "shape"}[vary]
    assert len(path) == 5
    for step, codes in enumerate(path):
        assert torch.equal(getattr(codes, fixed), getattr(first, fixed))
        expected = getattr(first, vary) + step / 4 * (getattr(last, vary) - getattr(first, vary))
        torch.testing.assert_close(getattr(codes, vary), expected)


def test_a_spherical_path_turns_evenly_and_keeps_the_length() -> None:
    first, last = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    for weight in (0.0, 0.25, 1 / 3, 1.0):
        angle = torch.tensor(weight * torch.pi / 2)
        expected = torch.stack([2 * angle.cos(), 2 * angle.sin(), angle * 0])[None]
        torch.testing.assert_close(spherical_blend(first, last, weight), expected)


def test_codes_that_no_circle_joins_are_blended_linearly() -> None:
    code = torch.tensor([[1.0, 2.0]])
    for other in (2 * code, -code, 0 * code):
        torch.testing.assert_close(spherical_blend(code, other, 0.3), linear_blend(code, other, 0.3))
    assert torch.equal(linear_blend(code, 3 * code, 0.5), 2 * code)


def test_impossible_requests_are_refused() -> None:
    network = shifting_network()
    codes = network.encode(cloud(1, 4, 20, 3))
    shape, times = cloud(1, 5, 3), torch.tensor([0.5])
    with pytest.raises(ValueError, match="do not correspond"):
        interpolate_shapes(network, codes, shape, shape[:, :4], times)
    with pytest.raises(ValueError, match="between 0"):
        interpolate_shapes(network, codes, shape, shape, times + 1)
    with pytest.raises(ValueError, match="2 or more keyframes"):
        interpolate_keyframes(network, shape, shape, 3)
    with pytest.raises(ValueError, match="steps_between"):
        interpolate_keyframes(network, cloud(2, 5, 3), cloud(2, 5, 3), 0)
    with pytest.raises(ValueError, match="no latent part"):
        latent_path(codes, codes, 3, "shape")
    with pytest.raises(ValueError, match="at least its two ends"):
        latent_path(codes, codes, 1, "shape")
