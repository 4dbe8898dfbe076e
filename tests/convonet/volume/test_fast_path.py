"""The network's fast path against plain ways of computing the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks.networks import PlainNetwork, copy_of, decode, encode, error_of, room_crop, training_batch
from convonet import DEFAULT_MODEL
from convonet.layers.sampling import TrilinearReads, sample_trilinear
from convonet.layers.voxel_unet import SPARSE_SHARE, ConvBlock
from convonet.precision import cpu_has_bf16_units, relu_
from convonet.training import CropObjective
from convonet.volume.network import CACHED_QUERIES, READ_SHARE, VolumeNetwork, VolumeNetworkConfig
from convonet.weights import load_network


@pytest.fixture(scope="module")
def room() -> tuple[VolumeNetwork, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The packaged network, a room's points and queries, and the logits of the plain network in float32."""
    network = load_network(DEFAULT_MODEL)
    assert isinstance(network, VolumeNetwork)
    plain = PlainNetwork(network.config)
    plain.load_state_dict(network.state_dict())
    plain.eval()
    points, queries = room_crop(seed=900_000_100)
    queries = queries[:: len(queries) // 30_000]
    return network, points, queries, decode(plain, encode(plain, points, False), queries, False)


def test_float32_logits_equal_those_of_the_plain_network(
    room: tuple[VolumeNetwork, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    network, points, queries, exact = room
    assert len(queries) > CACHED_QUERIES  # so that the decoder works in parts
    fast = decode(network, encode(network, points, False), queries, False)
    torch.testing.assert_close(fast, exact, rtol=0, atol=1e-4)
    with torch.enable_grad():  # as training computes it
        zeros = torch.zeros(len(points), dtype=torch.int64)
        query_zeros = torch.zeros(len(queries), dtype=torch.int64)
        trained = network(points, zeros, 1, (64, 64, 64), queries, query_zeros)
    torch.testing.assert_close(trained, exact, rtol=0, atol=1e-4)


@pytest.mark.skipif(not cpu_has_bf16_units(), reason="this processor has no bfloat16 units: float32 is used")
def test_bfloat16_decides_a_room_as_float32_does(
    room: tuple[VolumeNetwork, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    network, points, queries, exact = room
    error = error_of(decode(network, encode(network, points, True), queries, True), exact)
    assert error["decided_share"] > 0.9
    assert 0.05 < float((exact > 0).float().mean()) < 0.95  # the room has an inside and an outside
    assert error["decisions_that_differ"] < 1e-3
    assert error["largest"] < 0.5


@pytest.mark.skipif(not cpu_has_bf16_units(), reason="this processor has no bfloat16 units: float32 is used")
def test_gradients_in_bfloat16_are_those_of_the_plain_network_in_float32() -> None:
    network = load_network(DEFAULT_MODEL)
    assert isinstance(network, VolumeNetwork)
    batch = training_batch(side=40)
    read = torch.unique(TrilinearReads.at(batch.queries, batch.query_batch, batch.grid_shape).cells)
    assert len(read) < READ_SHARE * 2 * 40**3  # so that the last block is computed at these alone

    def gradients(kind: type[VolumeNetwork], use_bf16: bool) -> dict[str, torch.Tensor]:
        copy = copy_of(kind, network)
        loss, _ = CropObjective(use_bf16).loss(copy, batch)
        loss.backward()
        return {name: parameter.grad for name, parameter in copy.named_parameters()}

    exact, fast = gradients(PlainNetwork, False), gradients(VolumeNetwork, True)
    whole = torch.cat([gradient.flatten() for gradient in exact.values()]).norm()
    for name, gradient in fast.items():
        # 0.4% by rounding to 8 bits, and some more through the layers above; in a small gradient, the sum of large
        # terms that cancel, more of it.
        assert (gradient - exact[name]).norm() < 0.04 * exact[name].norm() + 0.003 * whole, name


def test_autocast_decodes_a_float32_volume_in_its_own_format(
    room: tuple[VolumeNetwork, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    network, points, queries, exact = room
    volume = encode(network, points, False)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network.decode(volume, queries[:100], torch.zeros(100, dtype=torch.int64))
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), exact[:100], rtol=0.02, atol=0.1)


def assert_same_gradients(
    ours: torch.Tensor, plain: torch.Tensor, inputs: list[torch.Tensor], upstream: torch.Tensor
) -> None:
    """Float64 sums in another order: they differ by some hundred roundings of terms of size one."""
    ours_of, plain_of = (
        torch.autograd.grad(result, inputs, upstream, materialize_grads=True) for result in (ours, plain)
    )
    for mine, other in zip(ours_of, plain_of, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.02, 0.1, 1.0]), channels_out=st.integers(3, 4)
)
def test_a_block_over_occupied_voxels_is_the_dense_block(seed: int, share: float, channels_out: int) -> None:
    torch.manual_seed(seed)
    grid, channels = (2, 4, 5, 6), 3
    block = ConvBlock(channels, channels_out).double()
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.norm.bias)
    occupied = torch.nonzero(torch.rand(2 * 4 * 5 * 6) < share).flatten()
    features = torch.randn(len(occupied), channels, dtype=torch.float64, requires_grad=True)
    dense = torch.zeros(2 * 4 * 5 * 6, channels, dtype=torch.float64).index_copy(0, occupied, features)
    expected = block(dense.view(*grid, channels).permute(0, 4, 1, 2, 3))
    sparse = block.forward_occupied(features, occupied, grid)
    torch.testing.assert_close(sparse, expected, rtol=0, atol=1e-10)
    assert_same_gradients(sparse, expected, [features, *block.parameters()], torch.randn_like(expected))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.02, 0.5, 1.0]), channels_out=st.integers(3, 4)
)
def test_a_block_at_some_voxels_is_the_dense_block(seed: int, share: float, channels_out: int) -> None:
    torch.manual_seed(seed)
    shape, channels = (2, 4, 5, 6), 3
    block = ConvBlock(channels, channels_out).double()
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.norm.bias)
    voxels = torch.nonzero(torch.rand(2 * 4 * 5 * 6) < share).flatten()
    x = torch.randn(2, channels, *shape[1:], dtype=torch.float64, requires_grad=True)
    expected = block(x).permute(0, 2, 3, 4, 1).reshape(-1, channels_out)[voxels]
    at_voxels = block.forward_at(x, voxels)
    torch.testing.assert_close(at_voxels, expected, rtol=0, atol=1e-10)
    upstream = torch.randn_like(expected)
    assert_same_gradients(at_voxels, expected, [x, *block.parameters()], upstream)


@pytest.mark.parametrize("count", [0, 30, 2000])  # nothing, few and most of 8^3 voxels
@pytest.mark.parametrize("asked", [10, 400])  # queries that read few and most of them
@pytest.mark.parametrize("levels", [1, 2])
def test_training_sees_the_field_and_the_gradients_of_encoding_and_decoding(
    count: int, asked: int, levels: int
) -> None:
    torch.manual_seed(4)
    sizes = VolumeNetworkConfig(
        feature_size=8, encoder_hidden=8, unet_levels=levels, decoder_hidden=12, decoder_blocks=3
    )
    network = VolumeNetwork(sizes).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    points, queries = torch.rand(count, 3).double() * 8, torch.rand(asked, 3).double() * 8
    occupied = len(torch.unique(torch.floor(points), dim=0)) if count else 0
    assert (occupied <= SPARSE_SHARE * 8**3) == (count < 2000)
    crop, crop_of_query = torch.zeros(count, dtype=torch.int64), torch.zeros(asked, dtype=torch.int64)
    read = len(torch.unique(TrilinearReads.at(queries, crop_of_query, (8, 8, 8)).cells))
    assert (read <= READ_SHARE * 8**3) == (asked == 10)
    trained = network(points, crop, 1, (8, 8, 8), queries, crop_of_query)
    volume = network.encode(points, crop, 1, (8, 8, 8))
    decoded = network.decode(volume, queries, crop_of_query)
    torch.testing.assert_close(trained, decoded, rtol=0, atol=1e-10)
    assert_same_gradients(trained, decoded, list(network.parameters()), torch.randn_like(decoded))
    with torch.no_grad():  # reconstruction's way
        volume = network.encode(points, crop, 1, (8, 8, 8))
        torch.testing.assert_close(
            network.decode(volume, queries, crop_of_query), decoded, rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)])
def test_a_volume_of_one_cell_along_an_axis_is_constant_along_it(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    volume = torch.randn(1, 2, *shape)
    sides = torch.tensor(shape[::-1])
    queries = torch.rand(50, 3) * (sides + 2) - 1
    grid = (2 * queries / sides - 1)[None, None, None]
    expected = F.grid_sample(volume, grid, padding_mode="border", align_corners=False)[0, :, 0, 0].T
    sampled = sample_trilinear(volume, queries, torch.zeros(50, dtype=torch.int64))
    torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_relu_in_place_is_relu(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(1000) * 10, torch.tensor([0.0, -0.0, 1e-40, -1e-40, torch.inf, -torch.inf])])
    x = x.to(dtype)
    expected = torch.relu(x)
    assert torch.equal(relu_(x), expected)
