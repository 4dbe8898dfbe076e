"""The U-Net's reach, by perturbing its input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convonet.layers.grid_box import GridBox
from convonet.layers.voxel_unet import VoxelUNet


def measured_reach(unet: VoxelUNet, side: int, position: int) -> int:
    """Largest distance along x at which changing one input voxel changes the output at `position`."""
    torch.manual_seed(0)
    volume = torch.randn(1, 4, side, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    unet(volume)[0, :, middle, middle, position].sum().backward()
    assert volume.grad is not None
    touched = torch.nonzero(volume.grad[0].abs().amax(dim=(0, 1, 2))).flatten()
    return int((touched - position).abs().max())


@pytest.mark.parametrize("levels", [2, 3])
def test_receptive_radius_bounds_every_dependence(levels: int) -> None:
    unet = VoxelUNet(4, levels).double()
    side, factor = (32 if levels == 2 else 56), unet.pooling_factor
    start = side // 2 // factor * factor
    reached = [measured_reach(unet, side, start + offset) for offset in range(factor)]
    assert max(reached) <= unet.receptive_radius
    # Max pooling follows one of the eight children, so a single random input may fall short of the bound
    # by the children it did not choose, but not by more.
    assert max(reached) >= unet.receptive_radius - factor


def test_output_shape_and_memory_order() -> None:
    unet = VoxelUNet(4, 3)
    volume = torch.zeros(2, 4, 8, 12, 16).to(memory_format=torch.channels_last_3d)
    assert unet(volume).shape == volume.shape


@pytest.mark.parametrize("levels", [1, 2, 3])
@settings(max_examples=25, deadline=None)
@given(draw=st.data())
def test_a_box_of_the_output_is_that_of_the_whole(levels: int, draw: st.DataObject) -> None:
    torch.manual_seed(levels)
    unet = VoxelUNet(4, levels).double()
    factor = unet.pooling_factor
    shape = [factor * draw.draw(st.integers(1, 24 // factor)) for _ in range(3)]
    low = [draw.draw(st.integers(0, side - 1)) for side in shape]
    high = [draw.draw(st.integers(start + 1, side)) for start, side in zip(low, shape, strict=True)]
    cells = shape[0] * shape[1] * shape[2]
    occupied = torch.randperm(cells)[: max(1, cells // 9)].sort().values
    features = torch.randn(len(occupied), 4, dtype=torch.float64)
    with torch.inference_mode():
        whole = unet.forward_occupied(features, occupied, (1, *shape))
        box = unet.forward_occupied(features, occupied, (1, *shape), GridBox(tuple(low), tuple(high)))
    expected = whole[:, :, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    torch.testing.assert_close(box, expected, rtol=0, atol=1e-12)
