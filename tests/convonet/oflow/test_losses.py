"""The loss of one training step, term by term, against its definition."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from convonet.layers.latent_gaussian import LatentGaussian
from convonet.oflow import (
    FlowBatch,
    FlowLossConfig,
    OccupancyFlow,
    OccupancyNetwork4DConfig,
    OccupancySamples,
    flow_loss,
    onet4d_loss,
)
from convonet.oflow.losses import kl_loss
from tests.convonet.oflow.test_network import SMALL, cloud, excite, random_network

SHIFT = torch.tensor([0.3, 0.0, -0.4], dtype=torch.float64)


def shifting_network() -> OccupancyFlow:
    """A network whose points all move by SHIFT per duration of the sequence."""
    network = random_network()
    torch.nn.init.zeros_(network.velocity_field.fc_out.weight)
    network.velocity_field.fc_out.bias.copy_(SHIFT)
    return network


def samples(times: list[float], seed: int) -> OccupancySamples:
    queries = cloud(2, 25, 3, seed=seed)
    return OccupancySamples(queries, (queries[..., 0] > 0).double(), torch.tensor(times, dtype=torch.float64))


def cross_entropy(logits: torch.Tensor, occupancy: torch.Tensor) -> torch.Tensor:
    probability = 1 / (1 + torch.exp(-logits))
    return -(occupancy * probability.log() + (1 - occupancy) * (1 - probability).log()).mean()


def test_reconstruction_asks_the_first_frame_and_one_later_frame() -> None:
    network, inputs = shifting_network(), cloud(2, 4, 20, 3)
    first, later = samples([0.0, 0.0], seed=1), samples([1.0, 0.25], seed=2)
    loss = flow_loss(network, FlowBatch(inputs, first, later), FlowLossConfig())
    codes = network.encode(inputs)
    back = later.queries - later.times.view(2, 1, 1) * SHIFT
    at_first = cross_entropy(network.decode(codes, first.queries), first.occupancy)
    at_later = cross_entropy(network.decode(codes, back), later.occupancy)
    torch.testing.assert_close(loss.reconstruction_first, at_first)
    torch.testing.assert_close(loss.reconstruction_later, at_later, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(loss.total, at_first + at_later, rtol=1e-6, atol=1e-8)
    assert loss.correspondence == loss.kl_shape == loss.kl_motion == 0


def test_correspondence_is_the_mean_distance_over_the_later_frames() -> None:
    network, tracks = shifting_network(), cloud(2, 5, 9, 3, seed=3)
    config = FlowLossConfig(reconstruction=False, correspondence=True)
    loss = flow_loss(network, FlowBatch(cloud(2, 4, 20, 3), trajectories=tracks), config)
    distances = [
        (tracks[:, 0] + frame / 4 * SHIFT - tracks[:, frame]).pow(2).sum(-1).sqrt() for frame in (1, 2, 3, 4)
    ]
    torch.testing.assert_close(loss.total, torch.stack(distances).mean(), rtol=1e-6, atol=1e-8)


def test_backward_correspondence_adds_the_way_back_over_all_frames() -> None:
    network, tracks = shifting_network(), cloud(2, 5, 9, 3, seed=3)
    config = FlowLossConfig(reconstruction=False, correspondence=True, backward_correspondence=True)
    loss = flow_loss(network, FlowBatch(cloud(2, 4, 20, 3), trajectories=tracks), config)
    ahead = [tracks[:, 0] + frame / 4 * SHIFT - tracks[:, frame] for frame in range(5)]
    behind = [tracks[:, 4] - (4 - frame) / 4 * SHIFT - tracks[:, frame] for frame in range(5)]
    expected = sum(torch.stack(way).pow(2).sum(-1).sqrt().mean() for way in (ahead, behind))
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=1e-8)


def test_perfect_trajectories_have_a_finite_gradient() -> None:
    network = shifting_network().requires_grad_(True)
    frames = torch.linspace(0, 1, 5, dtype=torch.float64).view(1, 5, 1, 1)
    tracks = cloud(2, 1, 9, 3) + frames * SHIFT
    config = FlowLossConfig(reconstruction=False, correspondence=True, backward_correspondence=True)
    flow_loss(network, FlowBatch(cloud(2, 4, 20, 3), trajectories=tracks), config).total.backward()
    gradients = [parameter.grad for parameter in network.velocity_field.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


def test_the_divergence_is_that_of_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(2, 6, 5, generator=generator)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros(5), torch.ones(5))).mean()
    torch.testing.assert_close(kl_loss(LatentGaussian(mean, log_std)), expected)
    assert kl_loss(LatentGaussian(torch.zeros(3, 5), torch.zeros(3, 5))) == 0


def test_divergences_of_both_latent_codes_are_weighted() -> None:
    network, inputs = random_network(replace(SMALL, latent_size=5)), cloud(2, 4, 20, 3)
    config = FlowLossConfig(reconstruction=False, correspondence=True, kl_weight=0.5)
    loss = flow_loss(network, FlowBatch(inputs, trajectories=cloud(2, 4, 9, 3)), config)
    _, shape, motion = network.encode_with_posteriors(inputs)
    torch.testing.assert_close(loss.kl_shape, 0.5 * kl_loss(shape))
    torch.testing.assert_close(loss.kl_motion, 0.5 * kl_loss(motion))
    torch.testing.assert_close(loss.total, loss.correspondence + loss.kl_shape + loss.kl_motion)


def test_the_baseline_sees_the_time_as_a_coordinate() -> None:
    torch.manual_seed(0)
    config = OccupancyNetwork4DConfig(frames=4, code_size=8, temporal_hidden=8, decoder_hidden=8)
    network = config.build().double()
    excite(network)
    network.eval()
    inputs, later = cloud(2, 4, 20, 3), samples([1.0, 0.25], seed=2)
    logits = network.decode(network.encode(inputs), later.queries, later.times)
    torch.testing.assert_close(onet4d_loss(network, inputs, later), cross_entropy(logits, later.occupancy))
    assert (network(inputs, later.queries) - logits).abs().max() > 1e-3
    torch.testing.assert_close(network(inputs, later.queries), network(inputs, later.queries, torch.zeros(2)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FlowLossConfig(), "needs occupancy samples"),
        (FlowLossConfig(reconstruction=False, correspondence=True), "needs trajectories"),
    ],
)
def test_a_batch_without_what_a_term_needs_is_refused(config: FlowLossConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow_loss(random_network(), FlowBatch(cloud(2, 4, 20, 3)), config)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reconstruction": False}, "nothing to train"),
        ({"backward_correspondence": True}, "switch that on too"),
        ({"kl_weight": -1.0}, "must not be negative"),
    ],
)
def test_impossible_losses_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowLossConfig(**wrong)
