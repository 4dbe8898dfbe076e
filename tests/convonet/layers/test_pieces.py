"""Threads that share a crop's pieces: the same bits, in the caller's modes."""

from __future__ import annotations

import threading

import pytest
import torch

from convonet.layers.pieces import each_piece, piece_threads
from convonet.layers.voxel_unet import ConvBlock
from convonet.volume import VolumeNetwork, VolumeNetworkConfig

SMALL = VolumeNetworkConfig(
    feature_size=8, encoder_hidden=8, encoder_blocks=2, unet_levels=2, decoder_hidden=8, decoder_blocks=2
)


@pytest.mark.parametrize("is_cast", [False, True], ids=["float32", "bfloat16"])
def test_logits_do_not_depend_on_the_number_of_threads(is_cast: bool) -> None:
    torch.manual_seed(2)
    network = VolumeNetwork(SMALL).eval().requires_grad_(False)
    points, queries = 20 * torch.rand(400, 3), 20 * torch.rand(40_000, 3)  # queries in three pieces
    zeros = torch.zeros(len(queries), dtype=torch.int64)
    found = []
    for threads in (0, 1, 3):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
            if threads == 0:
                crop = network.encode(points, zeros[:400], 1, (20, 20, 20))
                found.append(network.decode(crop, queries, zeros))
            else:
                with piece_threads(threads):
                    crop = network.encode(points, zeros[:400], 1, (20, 20, 20))
                    found.append(network.decode(crop, queries, zeros))
    assert found[0].dtype == (torch.bfloat16 if is_cast else torch.float32)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_pieces_are_computed_beside_each_other_and_errors_arrive() -> None:
    both = threading.Barrier(2, timeout=20)
    with piece_threads(2):
        assert each_piece(lambda number: both.wait() * 0 + number, [3, 4]) == [3, 4]
        with pytest.raises(ZeroDivisionError):
            each_piece(lambda number: 1 / number, [1, 0])
    assert each_piece(lambda _: threading.get_ident(), [0, 1]) == 2 * [threading.get_ident()]


@pytest.mark.parametrize("depth", [1, 2, 7, 8, 9, 16, 21])
@pytest.mark.parametrize("channels", [(3, 3), (3, 5)], ids=["residual", "wider"])
def test_a_block_in_slabs_is_the_block_of_training(depth: int, channels: tuple[int, int]) -> None:
    torch.manual_seed(depth)
    block = ConvBlock(*channels).double()
    torch.nn.init.normal_(block.norm.bias)
    volume = torch.randn(2, channels[0], depth, 5, 6, dtype=torch.float64)
    whole = block(volume)
    with torch.inference_mode():
        torch.testing.assert_close(block(volume), whole.detach(), rtol=0, atol=1e-12)
