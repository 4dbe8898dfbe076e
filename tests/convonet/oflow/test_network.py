"""Time in Occupancy Flow: where points go, where queries come from, what a configuration must be."""

from dataclasses import asdict, replace

import pytest
import torch

from convonet.oflow import OccupancyFlow, OccupancyFlowConfig, OccupancyNetwork4DConfig, SolverConfig
from tests.convonet.oflow.test_ode import smoothen

SMALL = OccupancyFlowConfig(
    frames=4,
    code_size=8,
    latent_size=0,
    spatial_hidden=8,
    temporal_hidden=8,
    latent_hidden=8,
    decoder_hidden=8,
    velocity_hidden=8,
    velocity_blocks=2,
    solver=SolverConfig(rtol=1e-8, atol=1e-10),
)


def excite(network: torch.nn.Module) -> None:
    """Random weights without zero layers: every path carries a signal of order 1."""
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 25
        torch.nn.init.normal_(parameter, std=0.8 * fan_in**-0.5)


def random_network(config: OccupancyFlowConfig = SMALL) -> OccupancyFlow:
    torch.manual_seed(3)
    network = config.build().double()
    excite(network)
    smoothen(network.velocity_field)
    return network.eval().requires_grad_(False)


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def test_forward_then_backward_returns_the_points() -> None:
    network, points = random_network(), cloud(3, 50, 3, seed=1)
    codes = network.encode(cloud(3, 4, 20, 3))
    ahead = network.transport(codes, points, torch.tensor([1.0]))[:, 0]
    assert (ahead - points).norm(dim=-1).mean() > 0.1
    back = network.transport(codes, ahead, torch.tensor([0.0]), start=1.0)[:, 0]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-6)


def test_a_field_with_kinks_returns_the_points_to_the_accuracy_of_its_tolerances() -> None:
    network, points = random_network(replace(SMALL, solver=SolverConfig())), cloud(3, 50, 3, seed=1)
    excite(network)
    codes = network.encode(cloud(3, 4, 20, 3))
    ahead = network.transport(codes, points, torch.tensor([1.0]))[:, 0]
    distance = (ahead - points).norm(dim=-1).mean()
    back = network.transport(codes, ahead, torch.tensor([0.0]), start=1.0)[:, 0]
    assert distance > 0.1
    assert (back - points).norm(dim=-1).mean() < 1e-2 * distance


@pytest.mark.parametrize("method", ["rk4", "midpoint"])
def test_fixed_steps_return_the_points_to_their_accuracy(method: str) -> None:
    solver = SolverConfig(method, step_size=0.02)  # type: ignore[arg-type]
    network, points = random_network(replace(SMALL, solver=solver)), cloud(3, 50, 3, seed=1)
    codes = network.encode(cloud(3, 4, 20, 3))
    ahead = network.transport(codes, points, torch.tensor([1.0]))[:, 0]
    back = network.transport(codes, ahead, torch.tensor([0.0]), start=1.0)[:, 0]
    torch.testing.assert_close(back, points, rtol=0, atol=1e-3)


def test_times_come_back_in_the_order_asked_and_through_any_start() -> None:
    network, points = random_network(), cloud(2, 10, 3, seed=1)
    codes = network.encode(cloud(2, 4, 20, 3))
    times = torch.tensor([0.7, 0.2, 1.0, 0.4, 0.7])
    middle = network.transport(codes, points, torch.tensor([0.4]))[:, 0]
    from_first = network.transport(codes, points, times)
    from_middle = network.transport(codes, middle, times, start=0.4)
    torch.testing.assert_close(from_middle, from_first, rtol=0, atol=1e-6)
    torch.testing.assert_close(from_middle[:, 3], middle, rtol=0, atol=1e-7)
    assert torch.equal(from_first[:, 0], from_first[:, 4])


def test_each_item_is_followed_back_from_its_own_time() -> None:
    network, points = random_network(), cloud(3, 10, 3, seed=1)
    codes = network.encode(cloud(3, 4, 20, 3))
    times = torch.tensor([0.8, 0.0, 0.3])
    together = network.transport_to_first(codes, points, times)
    for item, time in enumerate(times.tolist()):
        alone = network.transport(codes, points, torch.tensor([0.0]), start=time)[item, 0]
        torch.testing.assert_close(together[item], alone, rtol=0, atol=1e-6)
    assert torch.equal(together[1], points[1])


def test_occupancy_at_a_later_time_is_that_of_the_place_a_query_came_from() -> None:
    network, first = random_network(), cloud(2, 30, 3, seed=1)
    inputs, times = cloud(2, 4, 20, 3), torch.tensor([0.9, 0.5])
    codes = network.encode(inputs)
    paths = network.transport(codes, first, times)
    later = torch.stack([paths[0, 0], paths[1, 1]])
    at_first = network.decode(codes, first)
    assert at_first.std() > 1e-3
    torch.testing.assert_close(network.decode(codes, later, times), at_first, rtol=0, atol=1e-5)
    torch.testing.assert_close(network(inputs, later, times), at_first, rtol=0, atol=1e-5)
    assert (network.decode(codes, later) - at_first).abs().max() > 1e-3


def test_a_constant_field_shifts_points() -> None:
    network, points = random_network(), cloud(1, 10, 3)
    torch.nn.init.zeros_(network.velocity_field.fc_out.weight)
    network.velocity_field.fc_out.bias.copy_(torch.tensor([0.5, -1.0, 0.25]))
    codes = network.encode(cloud(1, 4, 20, 3))
    shift = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)
    moved = network.transport(codes, points, torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(moved[0, 0], points[0] + 0.25 * shift, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved[0, 1], points[0] + shift, rtol=0, atol=1e-9)
    first = network.transport_to_first(codes, points, torch.tensor([0.5]))
    torch.testing.assert_close(first[0], points[0] - 0.5 * shift, rtol=0, atol=1e-9)


def test_shape_does_not_change_motion_nor_motion_the_first_shape() -> None:
    network = random_network(replace(SMALL, latent_size=5))
    one, other = (network.encode(cloud(1, 4, 20, 3, seed=seed)) for seed in (1, 2))
    points, times = cloud(1, 30, 3, seed=3), torch.tensor([1.0])
    borrowed = one.moving_like(other)
    assert torch.equal(network.transport(borrowed, points, times), network.transport(other, points, times))
    assert torch.equal(network.decode(borrowed, points), network.decode(one, points))
    assert not torch.equal(network.decode(other, points), network.decode(one, points))


def test_latent_codes_come_from_the_posterior_or_the_prior() -> None:
    config = replace(SMALL, spatial_encoder=None, temporal_encoder=None, decoder="simple", latent_size=5)
    network, inputs = random_network(config), cloud(4000, 4, 2, 3)[:1].expand(4000, 4, 2, 3)
    codes, shape, motion = network.encode_with_posteriors(inputs, torch.Generator().manual_seed(0))
    for drawn, posterior in ((codes.shape, shape), (codes.motion, motion)):
        torch.testing.assert_close(drawn.mean(0), posterior.mean[0], rtol=0, atol=0.3)
        torch.testing.assert_close(drawn.std(0).log(), posterior.log_std[0], rtol=0, atol=0.05)
    means = network.encode(inputs[:2])
    torch.testing.assert_close(means.shape, shape.mean[:2])
    nothing = torch.empty(4000, 1, 0, dtype=torch.float64)
    prior = network.encode_with_prior(nothing, generator=torch.Generator().manual_seed(1))
    for drawn in (prior.shape, prior.motion):
        assert drawn.shape == (4000, 5)
        torch.testing.assert_close(drawn.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=0.07)
        torch.testing.assert_close(drawn.std(0), torch.ones(5, dtype=torch.float64), rtol=0, atol=0.05)
    assert (prior.shape - prior.motion).abs().max() > 0.1
    assert not network.encode_with_prior(nothing, sample=False).shape.any()


def test_motion_is_encoded_whatever_the_order_of_the_tracked_points() -> None:
    network, inputs = random_network(), cloud(1, 4, 20, 3)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.encode(inputs[:, :, order]).temporal, network.encode(inputs).temporal)
    torch.testing.assert_close(network.encode(inputs[:, :, order]).spatial, network.encode(inputs).spatial)


def test_the_first_code_depends_on_the_first_frame_alone() -> None:
    network, inputs = random_network(), cloud(1, 4, 20, 3)
    changed = inputs.clone()
    changed[:, 1:] += 0.1
    assert torch.equal(network.encode(changed).spatial, network.encode(inputs).spatial)
    assert not torch.equal(network.encode(changed).temporal, network.encode(inputs).temporal)


def test_a_sequence_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="5 frames for an encoder of 4"):
        random_network().encode(cloud(1, 5, 20, 3))
    config = replace(SMALL, temporal_encoder=None, latent_size=3)
    with pytest.raises(ValueError, match="5 frames for a latent encoder of 4"):
        random_network(config).encode(cloud(1, 5, 20, 3))


def test_times_before_the_first_frame_are_refused_for_queries() -> None:
    network = random_network()
    with pytest.raises(ValueError, match="must not be negative"):
        network.decode(network.encode(cloud(1, 4, 20, 3)), cloud(1, 5, 3), torch.tensor([-0.1]))


def test_configurations_survive_json() -> None:
    assert OccupancyFlowConfig.from_dict(asdict(SMALL)) == SMALL


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decoder": "deep"}, "decoder must be one of"),
        ({"spatial_encoder": "vgg"}, "spatial_encoder must be one of"),
        ({"temporal_encoder": "lstm"}, "temporal_encoder must be one of"),
        ({"spatial_encoder": None}, "needs a spatial encoder"),
        ({"velocity_blocks": 0}, "velocity_blocks must be a positive"),
        ({"frames": 1}, "at least 2 frames"),
        ({"latent_size": -1}, "must not be negative"),
        ({"temporal_encoder": "pointnet_pair", "code_size": 7}, "must be even"),
    ],
)
def test_impossible_networks_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decoder": "deep"}, "decoder must be"),
        ({"temporal_encoder": "pointnet_pair"}, "temporal_encoder must be"),
        ({"code_size": 0}, "code_size must be a positive"),
        ({"frames": 0}, "at least 2 frames"),
    ],
)
def test_impossible_baselines_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OccupancyNetwork4DConfig(**wrong)
