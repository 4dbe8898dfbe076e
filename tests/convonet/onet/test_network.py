"""The evidence lower bound, latents, configurations, and weights on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributions
from torch.nn import functional

from convonet.layers.latent_gaussian import LatentGaussian
from convonet.onet import PRESETS, OccupancyNetworkConfig
from convonet.onet.latent_encoder import interpolate_latents
from convonet.onet.network import OccupancyNetwork

SMALL_LATENT = OccupancyNetworkConfig(
    encoder="pointnet_resnet",
    feature_size=6,
    encoder_hidden=8,
    decoder_hidden=16,
    latent_size=5,
    latent_hidden=12,
)


def random_network(config: OccupancyNetworkConfig, seed: int) -> OccupancyNetwork:
    torch.manual_seed(seed)
    network = config.build()
    for parameter in network.parameters():  # no zero layers: every path must carry signal
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def batch(seed: int, queries: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(3, 20, 3, generator=generator) - 0.5
    positions = torch.rand(3, queries, 3, generator=generator) - 0.5
    return points, positions, (torch.rand(3, queries, generator=generator) > 0.5).float()


@pytest.mark.parametrize("training", [True, False])
def test_elbo_agrees_with_torch_distributions(training: bool) -> None:
    network = random_network(SMALL_LATENT, 1).train(training)
    points, queries, occupancy = batch(2)
    result = network.elbo(points, queries, occupancy, torch.Generator().manual_seed(3))

    features = network.encode(points)
    posterior = network.infer_latent(features, queries, occupancy)
    q = distributions.Normal(posterior.mean, posterior.log_std.exp())
    noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(3))
    logits = network.decode(features, queries, q.mean + q.stddev * noise)
    likelihood = distributions.Bernoulli(logits=logits).log_prob(occupancy).sum(dim=1)
    kl = distributions.kl_divergence(q, distributions.Normal(torch.zeros(5), torch.ones(5))).sum(dim=1)

    torch.testing.assert_close(result.reconstruction, -likelihood)
    torch.testing.assert_close(result.kl, kl)
    torch.testing.assert_close(result.bound, likelihood - kl)
    torch.testing.assert_close(result.loss, kl.mean() - likelihood.mean())
    assert kl.min() > 0.01


def test_the_loss_reaches_every_weight() -> None:
    network = random_network(SMALL_LATENT, 4)
    network.elbo(*batch(5), torch.Generator().manual_seed(6)).loss.backward()
    silent = [
        name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().any()
    ]
    assert silent == []


def test_without_a_latent_the_loss_is_the_summed_cross_entropy() -> None:
    network = random_network(replace(SMALL_LATENT, latent_size=0), 7).eval()
    points, queries, occupancy = batch(8)
    result = network.elbo(points, queries, occupancy)
    logits = network(points, queries)
    expected = functional.binary_cross_entropy_with_logits(logits, occupancy, reduction="sum") / 3
    torch.testing.assert_close(result.loss, expected)
    assert torch.equal(result.kl, torch.zeros(3))


def test_divergence_is_zero_for_the_prior_alone() -> None:
    prior = LatentGaussian(torch.zeros(2, 4), torch.zeros(2, 4))
    assert torch.equal(prior.kl_to_prior(), torch.zeros(2, 4))
    assert (LatentGaussian(torch.zeros(2, 4), torch.full((2, 4), 0.1)).kl_to_prior() > 0).all()


def test_latents_follow_their_posterior() -> None:
    gaussian = LatentGaussian(torch.tensor([[1.0, -2.0]]).expand(50_000, 2), torch.tensor([[0.5, -1.0]]))
    drawn = gaussian.sample(torch.Generator().manual_seed(9))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -2.0]), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.std(0), torch.tensor([0.5, -1.0]).exp(), rtol=0.02, atol=0)


def test_sampled_latents_are_standard_normal_and_follow_the_seed() -> None:
    network = PRESETS["onet_unconditional"].build()
    first, again, other = (network.sample_latent(4000, seed) for seed in (10, 10, 11))
    assert first.shape == (4000, 128)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert abs(float(first.mean())) < 0.01
    assert abs(float(first.std()) - 1) < 0.01


def test_no_latent_given_means_the_prior_s_mean() -> None:
    network = random_network(SMALL_LATENT, 12).eval()
    points, queries, _ = batch(13)
    torch.testing.assert_close(network(points, queries), network(points, queries, torch.zeros(3, 5)))
    assert (network(points, queries) - network(points, queries, torch.ones(3, 5))).abs().max() > 0.01


def test_interpolation_is_linear_between_its_ends() -> None:
    start, end = torch.tensor([0.0, 4.0, -1.0]), torch.tensor([2.0, 0.0, -1.0])
    path = interpolate_latents(start, end, 5)
    assert torch.equal(path[0], start)
    assert torch.equal(path[4], end)
    torch.testing.assert_close(path[1], torch.tensor([0.5, 3.0, -1.0]))
    with pytest.raises(ValueError, match="at least 2 steps"):
        interpolate_latents(start, end, 1)
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        interpolate_latents(start, end[:2], 3)


def test_a_query_s_value_does_not_depend_on_the_others_in_evaluation() -> None:
    network = random_network(SMALL_LATENT, 14).eval()
    points, queries, _ = batch(15)
    features, latent = network.encode(points), network.sample_latent(3, 16)
    whole = network.decode(features, queries, latent)
    pieces = [network.decode(features, piece, latent) for piece in queries.split(7, dim=1)]
    torch.testing.assert_close(whole, torch.cat(pieces, dim=1))
    alone = network.decode(features[1:2], queries[1:2], latent[1:2])
    torch.testing.assert_close(whole[1:2], alone)


def test_shapes_that_do_not_fit_are_refused() -> None:
    network = random_network(SMALL_LATENT, 17).eval()
    points, queries, occupancy = batch(18)
    features = network.encode(points)
    with pytest.raises(ValueError, match=r"queries must be \(3, Q, 3\), not \(2, 30, 3\)"):
        network.decode(features, queries[:2])
    with pytest.raises(ValueError, match=r"latent must be \(3, 5\), not \(3, 4\)"):
        network.decode(features, queries, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"occupancy must be \(3, 30\)"):
        network.elbo(points, queries, occupancy[:, :1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "pointnet"}, "encoder must be one of"),
        ({"decoder": "cbn"}, "decoder must be one of"),
        ({"encoder_hidden": 0}, "encoder_hidden must be a positive whole number"),
        ({"encoder": "resnet18"}, "encoder_hidden must be 0 with encoder 'resnet18'"),
        ({"shape_count": 4}, "shape_count must be 0"),
        ({"encoder": "index", "encoder_hidden": 0}, "shape_count must be a positive"),
        ({"encoder": "none", "encoder_hidden": 0}, "feature_size must be 0"),
        ({"encoder": "none", "encoder_hidden": 0, "feature_size": 0}, "use 'simple'"),
        ({"feature_size": 2.5}, "feature_size must be a positive whole number"),
        ({"latent_size": -1}, "latent_size must be a positive whole number"),
        ({"decoder_blocks": 0}, "decoder_blocks must be"),
        ({"decoder": "cbatchnorm2", "decoder_leaky": True}, "no leaky variant"),
        ({"threshold": 1.0}, "threshold must lie between"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL_LATENT, **changes)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json_and_build_what_they_say(preset: str) -> None:
    config = PRESETS[preset]
    assert OccupancyNetworkConfig(**json.loads(json.dumps(asdict(config)))) == config
    network = config.build()
    assert network.config is config
    assert network.sample_latent(2, 0).shape == (2, config.latent_size)


def test_a_network_survives_the_disk(tmp_path: Path) -> None:
    network = random_network(SMALL_LATENT, 19)
    points, queries, occupancy = batch(20)
    network.elbo(points, queries, occupancy).loss.backward()  # moves the running statistics
    save_file(network.state_dict(), tmp_path / "onet.safetensors")
    again = SMALL_LATENT.build()
    again.load_state_dict(load_file(tmp_path / "onet.safetensors"))
    assert torch.equal(network.eval()(points, queries), again.eval()(points, queries))
