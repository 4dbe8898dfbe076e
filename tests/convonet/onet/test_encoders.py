"""Encoders and decoders against straight-line recomputations from the original's entries."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from convonet.layers.resnet18 import BasicBlock
from convonet.onet import OccupancyNetworkConfig, from_original
from convonet.onet.network import OccupancyNetwork
from tests.convonet.onet import original_forward as forward
from tests.convonet.onet import original_states as states

CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def imported(config: OccupancyNetworkConfig, state: dict[str, torch.Tensor]) -> OccupancyNetwork:
    network = config.build()
    network.load_state_dict(from_original(state, config))
    return network.eval().requires_grad_(False)


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_resnet_pointnet() -> None:
    config = OccupancyNetworkConfig("pointnet_resnet", 24, encoder_hidden=16, decoder_hidden=8)
    state = states.random_state(states.resnet_pointnet(24, 16) | states.conditional_decoder(24, 8), 1)
    points = uniform(2, 3, 50, 3)
    torch.testing.assert_close(imported(config, state).encode(points), forward.resnet_pointnet(state, points))


def test_simple_pointnet() -> None:
    config = OccupancyNetworkConfig("pointnet_simple", 24, encoder_hidden=16, decoder_hidden=8)
    state = states.random_state(states.simple_pointnet(24, 16) | states.conditional_decoder(24, 8), 3)
    points = uniform(4, 3, 50, 3)
    torch.testing.assert_close(imported(config, state).encode(points), forward.simple_pointnet(state, points))


@pytest.mark.parametrize("kind", ["pointnet_resnet", "pointnet_simple"])
def test_the_order_of_points_and_their_repetition_do_not_matter(kind: str) -> None:
    torch.manual_seed(5)
    network = OccupancyNetworkConfig(kind, 24, encoder_hidden=16).build().eval()  # type: ignore[arg-type]
    points = uniform(6, 2, 40, 3)
    shuffled = points[:, torch.randperm(40, generator=torch.Generator().manual_seed(7))]
    torch.testing.assert_close(network.encode(points), network.encode(shuffled))
    torch.testing.assert_close(network.encode(points), network.encode(torch.cat([points, points], dim=1)))


@pytest.mark.parametrize(("channels", "stride"), [((8, 8), 1), ((8, 16), 2), ((8, 16), 1)])
@pytest.mark.parametrize("training", [True, False])
def test_resnet_18_basic_block(channels: tuple[int, int], stride: int, training: bool) -> None:
    block = BasicBlock(*channels, stride).train(training)
    generator = torch.Generator().manual_seed(8)
    for name, value in block.state_dict().items():
        if value.is_floating_point():
            value.normal_(std=0.3, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    s = {name: value.clone() for name, value in block.state_dict().items()}
    x = uniform(9, 2, channels[0], 9, 9)

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        mean, variance = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        if training:
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        y = (y - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        return y * s[f"{name}.weight"][:, None, None] + s[f"{name}.bias"][:, None, None]

    y = norm("bn1", functional.conv2d(x, s["conv1.weight"], stride=stride, padding=1)).clamp(min=0)
    y = norm("bn2", functional.conv2d(y, s["conv2.weight"], padding=1))
    shortcut = x
    if channels[0] != channels[1]:
        shortcut = norm("downsample.1", functional.conv2d(x, s["downsample.0.weight"], stride=stride))
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0), **CLOSE)


@pytest.mark.parametrize("is_leaky", [True, False])
@pytest.mark.parametrize("features", [0, 5])
def test_latent_encoder(is_leaky: bool, features: int) -> None:
    config = OccupancyNetworkConfig(
        encoder="index" if features else "none",
        feature_size=features,
        shape_count=4 if features else 0,
        decoder="simple",
        decoder_hidden=8,
        latent_size=7,
        latent_leaky=is_leaky,
    )
    entries = states.simple_decoder(features, 8, 7) | states.latent_encoder(7, features)
    state = states.random_state(entries | ({"encoder.weight": (4, 5)} if features else {}), 10)
    network = imported(config, state)
    queries, occupancy = uniform(11, 3, 40, 3), (uniform(12, 3, 40) > 0).float()
    c = network.encode(torch.tensor([3, 0, 2]))
    posterior = network.infer_latent(c, queries, occupancy)
    mean, log_std = forward.latent_encoder(state, queries, occupancy, c, is_leaky)
    torch.testing.assert_close(posterior.mean, mean, **CLOSE)
    torch.testing.assert_close(posterior.log_std, log_std, **CLOSE)


def decoder_case(kind: str) -> tuple[states.Entries, OccupancyNetworkConfig]:
    config = OccupancyNetworkConfig(
        encoder="index",
        feature_size=5,
        shape_count=4,
        decoder=kind,  # type: ignore[arg-type]
        decoder_hidden=16,
        decoder_blocks=3 if kind == "cbatchnorm2" else 5,
        latent_size=7,
    )
    decoder = {
        "simple": lambda: states.simple_decoder(5, 16, 7),
        "batchnorm": lambda: states.batch_norm_decoder(5, 16, 7),
        "cbatchnorm": lambda: states.conditional_decoder(5, 16, 7),
        "cbatchnorm2": lambda: states.conditional_decoder_2(5, 16, 7, blocks=3),
        "cbatchnorm_noresnet": lambda: states.conditional_decoder_without_blocks(5, 16, 7),
    }[kind]()
    return {"encoder.weight": (4, 5)} | decoder | states.latent_encoder(7, 5), config


@pytest.mark.parametrize("kind", ["simple", "batchnorm", "cbatchnorm", "cbatchnorm2", "cbatchnorm_noresnet"])
def test_every_decoder_with_features_and_latent(kind: str) -> None:
    entries, config = decoder_case(kind)
    state = states.random_state(entries, 13)
    network = imported(config, state)
    queries, z, numbers = uniform(14, 3, 30, 3), uniform(15, 3, 7), torch.tensor([2, 2, 1])
    c = state["encoder.weight"][numbers]
    expected = {
        "simple": lambda: forward.simple(state, queries, z, c),
        "batchnorm": lambda: forward.batchnorm(state, queries, z, c),
        "cbatchnorm": lambda: forward.cbatchnorm(state, queries, z, c),
        "cbatchnorm2": lambda: forward.cbatchnorm2(state, queries, z, c, blocks=3),
        "cbatchnorm_noresnet": lambda: forward.cbatchnorm_noresnet(state, queries, z, c),
    }[kind]()
    torch.testing.assert_close(network(numbers, queries, z), expected, **CLOSE)
    assert expected.std() > 0.05  # the comparison is of signals, not of zeros


def test_leaky_decoder() -> None:
    config = OccupancyNetworkConfig("index", 5, shape_count=4, decoder_hidden=16, decoder_leaky=True)
    state = states.random_state({"encoder.weight": (4, 5)} | states.conditional_decoder(5, 16), 16)
    queries, numbers = uniform(17, 2, 30, 3), torch.tensor([0, 3])
    expected = forward.cbatchnorm(
        state, queries, torch.zeros(2, 0), state["encoder.weight"][numbers], is_leaky=True
    )
    torch.testing.assert_close(imported(config, state)(numbers, queries), expected, **CLOSE)


def test_inputs_of_another_shape_are_refused() -> None:
    points = OccupancyNetworkConfig("pointnet_resnet", 8, encoder_hidden=8, decoder_hidden=8).build()
    voxels = OccupancyNetworkConfig("voxel_simple", 8, encoder_hidden=2, decoder_hidden=8).build()
    images = OccupancyNetworkConfig("resnet18", 8, decoder_hidden=8).build()
    index = OccupancyNetworkConfig("index", 8, shape_count=3, decoder_hidden=8).build()
    with pytest.raises(ValueError, match=r"points must be \(B, N, 3\).*\(2, 0, 3\)"):
        points.encode(torch.zeros(2, 0, 3))
    with pytest.raises(ValueError, match=r"voxels must be .*\(1, 16, 16, 16\)"):
        voxels.encode(torch.zeros(1, 16, 16, 16))
    with pytest.raises(ValueError, match=r"images must be .*\(1, 1, 64, 64\)"):
        images.encode(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match="shape numbers must be"):
        index.encode(torch.zeros(2))
