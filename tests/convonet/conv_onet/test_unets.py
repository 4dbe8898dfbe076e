"""The U-Nets: one block in plain arithmetic, what shifts with the input, and how far an output sees."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from convonet.conv_onet.feature_grids import dense_grid
from convonet.conv_onet.unet2d import ConvPair, UNet2D
from convonet.conv_onet.unet3d import NormConv, UNet3DGroupNorm


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.double().eval().requires_grad_(False)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """(C, R, ..., R) with zeros around it, by shifted sums."""
    dims = x.dim() - 1
    padded = nn.functional.pad(x, [1, 1] * dims)
    result = x.new_zeros(len(weight), *x.shape[1:])
    for offset in itertools.product(range(3), repeat=dims):
        window = padded[(slice(None), *(slice(o, o + n) for o, n in zip(offset, x.shape[1:], strict=True)))]
        result += torch.einsum("oi,i...->o...", weight[(slice(None), slice(None), *offset)], window)
    return result


def unet_reach(levels: int) -> int:
    """Cells between an output of a U-Net and the farthest input that its convolutions reach.

    Args:
        levels: resolutions of the U-Net; each has two convolutions of width 3 on the way down, and each but
            the coarsest two on the way up; factor 2 between levels.

    Returns:
        The largest distance over all phases of the output within a coarsest cell, in cells.
    """
    return max(_reach_at(phase, levels) for phase in range(1 << (levels - 1)))


def _reach_at(position: int, levels: int) -> int:
    low = high = position
    for _ in range(levels - 1):  # up path, read backwards: two convolutions, then the coarser parent cell
        low, high = (low - 2) // 2, (high + 2) // 2
    low, high = low - 2, high + 2
    for _ in range(levels - 1):  # down path, read backwards: both children of a cell, then two convolutions
        low, high = 2 * low - 2, 2 * high + 1 + 2
    return max(position - low, high - position)


def test_a_block_of_the_planes_is_convolve_rectify_twice() -> None:
    block = randomised(ConvPair(3, 5))
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for item, computed in zip(x, block(x), strict=True):
        middle = (convolve(item, block.conv1.weight) + block.conv1.bias[:, None, None]).clamp(min=0)
        expected = (convolve(middle, block.conv2.weight) + block.conv2.bias[:, None, None]).clamp(min=0)
        torch.testing.assert_close(computed, expected)


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (16, 8)])
def test_a_block_of_the_volume_is_normalize_convolve_rectify(channels: int, groups: int) -> None:
    block = randomised(NormConv(channels, 3))
    x = torch.randn(2, channels, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for item, computed in zip(x, block(x), strict=True):
        parts = item.view(groups, -1)
        centered = parts - parts.mean(dim=1, keepdim=True)
        scaled = centered / (centered.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        normalized = scaled.view_as(item) * block.norm.weight[:, None, None, None]
        normalized = normalized + block.norm.bias[:, None, None, None]
        torch.testing.assert_close(computed, convolve(normalized, block.conv.weight).clamp(min=0))


def test_channels_that_do_not_divide_into_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        UNet3DGroupNorm(12, 2, 8)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_the_reach_is_exactly_how_far_an_output_sees(levels: int) -> None:
    """Positive weights let every input through; the farthest that changes an output is the reach."""
    unet = UNet2D(1, levels, 1).double().requires_grad_(False)
    for parameter in unet.parameters():
        parameter.data = torch.full_like(parameter, 0.1)
    side = 2 ** (levels - 1) * (4 + 2 * unet_reach(levels) // 2 ** (levels - 1))
    farthest = 0
    first = side // 2 - side // 2 % 2 ** (levels - 1)
    for position in range(first, first + 2 ** (levels - 1)):
        planes = torch.ones(1, 1, 8 + 8 * 2 ** (levels - 1), side, dtype=torch.float64, requires_grad=True)
        unet(planes)[0, 0, 8, position].backward()
        # maxima let one of two equal children through: look where either child of a pair may pass
        mirrored = torch.ones_like(planes).requires_grad_()
        flipped = unet(mirrored.flip(-1)).flip(-1)[0, 0, 8, position]
        flipped.backward()
        assert planes.grad is not None and mirrored.grad is not None
        seen = (planes.grad[0, 0] + mirrored.grad[0, 0]).abs().sum(dim=0).nonzero().flatten()
        farthest = max(farthest, int((seen - position).abs().max()))
    assert farthest == unet_reach(levels)


def shifted_blob(side: int, dims: int, at: int, seed: int = 3) -> Tensor:
    """Random features in a small cube whose corner is at (at, ..., at) of an empty grid, (1, 4, R, ..., R)."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.zeros(1, 4, *([side] * dims), dtype=torch.float64)
    blob = torch.randn(4, *([4] * dims), generator=generator, dtype=torch.float64)
    grid[(0, slice(None), *([slice(at, at + 4)] * dims))] = blob
    return grid


def middle(grid: Tensor, low: int, high: int) -> Tensor:
    return grid[(slice(None), slice(None), *([slice(low, high)] * (grid.dim() - 2)))]


def test_planes_shift_with_their_input_by_multiples_of_the_pooling_factor() -> None:
    unet = randomised(UNet2D(4, 3, 4))
    radius, side = unet_reach(3), 96
    here = unet(shifted_blob(side, 2, 40))
    low, high = radius, side - radius - 8
    for shift in (4, 8):
        there = unet(shifted_blob(side, 2, 40 + shift))
        torch.testing.assert_close(
            middle(there, low + shift, high + shift), middle(here, low, high), rtol=0, atol=1e-12
        )
        assert not torch.allclose(
            there[..., shift:, shift:], here[..., :-shift, :-shift]
        )  # not at the border
    odd = unet(shifted_blob(side, 2, 41))
    assert (middle(odd, low + 1, high + 1) - middle(here, low, high)).abs().max() > 1e-3


def test_volumes_shift_too_as_long_as_nothing_comes_near_the_border() -> None:
    unet = randomised(UNet3DGroupNorm(4, 2, 8))
    radius, side = unet_reach(2), 40
    here = unet(shifted_blob(side, 3, 16))
    there = unet(shifted_blob(side, 3, 18))
    low, high = radius, side - radius - 2
    torch.testing.assert_close(middle(there, low + 2, high + 2), middle(here, low, high), rtol=0, atol=1e-9)
    odd = unet(shifted_blob(side, 3, 17))
    assert (middle(odd, low + 1, high + 1) - middle(here, low, high)).abs().max() > 1e-3
    # at the border the zeros around the volume change what the group norms see, and with them every output
    border = unet(shifted_blob(side, 3, 0))
    far = slice(side - 12, side - radius)
    assert (border - here)[0, :, far, far, far].abs().max() > 1e-6


def test_group_norm_sees_everything_where_planes_see_their_reach() -> None:
    planes, volume = randomised(UNet2D(4, 2, 4)), randomised(UNet3DGroupNorm(4, 2, 8))
    for unet, dims, local in ((planes, 2, True), (volume, 3, False)):
        alone = shifted_blob(40, dims, 6)
        together = alone + shifted_blob(40, dims, 32, seed=4)
        reach = unet_reach(2)
        change = (middle(unet(together), 0, 32 - reach) - middle(unet(alone), 0, 32 - reach)).abs().max()
        assert (change == 0) if local else (change > 1e-4)


def test_the_volume_s_u_net_keeps_its_digits_at_64() -> None:
    """Against double precision, on the sparse channels-last volume that the encoder hands over."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(2)
    unet, side = UNet3DGroupNorm(32, 4, 32).eval().requires_grad_(False), 64
    index = torch.randperm(side**3, generator=generator)[:8000]
    volume = dense_grid(torch.randn(8000, 32, generator=generator), index, (1, side, side, side))
    found = unet(volume)
    exact = unet.double()(volume.double().contiguous())
    assert exact.std() > 0.1
    assert (found - exact).abs().max() < 1e-4


def test_dense_grids_hold_features_where_their_cells_are() -> None:
    pooled = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    index = torch.tensor([1, 3 * 3 * 3 + 2 + 3 * (1 + 3 * 2), 2 * 3 * 3 * 3 - 1])
    grid = dense_grid(pooled, index, (2, 3, 3, 3))
    assert grid.shape == (2, 2, 3, 3, 3)
    assert grid[0, :, 0, 0, 1].tolist() == [1.0, 2.0]
    assert grid[1, :, 2, 1, 2].tolist() == [3.0, 4.0]
    assert grid[1, :, 2, 2, 2].tolist() == [5.0, 6.0]
    assert int((grid != 0).sum()) == 6
