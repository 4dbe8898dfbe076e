"""What shifts with the input: features of crops and, but for absolute positions, of objects; logits with their box.

Everything is in double precision with a U-Net of two levels, and far enough from the border.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from convonet.conv_onet import ConvOnet, ConvOnetConfig, CropInputs
from convonet.conv_onet.coordinates import AXES, VOLUME_MARGIN, Projection
from convonet.conv_onet.local_decoder import sample_grid

SIDE = 40
FACTOR = 2
VOXEL = 0.25  # a power of two: moving by whole voxels is exact
STEPS = (2, 4, -2)  # cells along x, y and z
EACH: tuple[tuple[Projection, ...], ...] = (("grid",), ("xz", "xy", "yz"))


def network(family: str, projections: tuple[Projection, ...], **changes: object) -> ConvOnet:
    config = ConvOnetConfig(
        family,  # type: ignore[arg-type]
        projections,
        plane_resolution=SIDE,
        volume_resolution=SIDE,
        feature_size=8,
        encoder_hidden=8,
        encoder_blocks=2,
        unet2d_levels=2,
        unet2d_channels=4,
        unet3d_levels=2,
        unet3d_channels=8,
        decoder_hidden=8,
        decoder_blocks=2,
        unit_size=VOXEL,
    )
    built = replace(config, **changes).build()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for parameter in built.parameters():  # no zero layers: every path must carry signal
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return built.double().eval().requires_grad_(False)


def points_in_middle_cells(count: int = 80) -> Tensor:
    """(1, count, 3) in cells 18 to 21 along each axis, in units of a cell; multiples of 1/64, off the faces."""
    generator = torch.Generator().manual_seed(1)
    return 18 + (torch.randint(0, 256, (1, count, 3), generator=generator).double() + 0.5) / 64


def middle(grid: Tensor, steps: tuple[int, ...] = ()) -> Tensor:
    """Cells 14 to 25 along each spatial axis of (1, C, R, ...), the window moved by `steps` in x, y, z order."""
    moved = steps or (0,) * (grid.dim() - 2)
    return grid[(slice(None), slice(None), *(slice(14 + step, 26 + step) for step in reversed(moved)))]


def crops(points: Tensor, lower: float = 0.0, upper: float = SIDE * VOXEL) -> CropInputs:
    low, high = torch.full((1, 3), lower).double(), torch.full((1, 3), upper).double()
    return CropInputs.in_boxes(points, low, high, SIDE, ("grid", "xz", "xy", "yz"))


@pytest.mark.parametrize("projections", EACH)
def test_features_of_crops_shift_with_their_points(projections: tuple[Projection, ...]) -> None:
    net = network("crops", projections)
    points = points_in_middle_cells() * VOXEL
    here = net.encode(crops(points)).grids
    there = net.encode(crops(points + torch.tensor(STEPS) * VOXEL)).grids
    odd = net.encode(crops(points + VOXEL)).grids
    for projection in projections:
        axes = AXES[projection]
        steps, ones = tuple(STEPS[axis] for axis in axes), (1,) * len(axes)
        still = middle(here[projection])
        assert still.std() > 0.01
        torch.testing.assert_close(middle(there[projection], steps), still, rtol=0, atol=1e-9)
        assert (middle(odd[projection], ones) - still).abs().max() > 1e-3  # the pooling factor matters


@pytest.mark.parametrize("projections", EACH)
@pytest.mark.parametrize("is_blind", [True, False])
def test_only_absolute_positions_tie_features_of_objects_to_their_place(
    projections: tuple[Projection, ...], is_blind: bool
) -> None:
    net = network("points", projections)
    cell = (1.1 + VOLUME_MARGIN) / SIDE  # planes are wider by a thousandth: the points stay off the faces
    if is_blind:
        nn.init.zeros_(net.encoder.trunk.fc_pos.weight)
    points = (points_in_middle_cells() - SIDE / 2) * cell
    here, there = net.encode(points), net.encode(points + torch.tensor(STEPS) * cell)
    for projection in projections:
        steps = tuple(STEPS[axis] for axis in AXES[projection])
        change = (middle(there[projection], steps) - middle(here[projection])).abs().max()
        assert (change < 1e-9) == is_blind, change


@pytest.mark.parametrize("projections", EACH)
@pytest.mark.parametrize("encoding", ["linear", "sin_cos"])
def test_logits_of_a_crop_that_moves_with_its_points_stay(
    projections: tuple[Projection, ...], encoding: str
) -> None:
    net = network("crops", projections, encoding=encoding)
    points = points_in_middle_cells() * VOXEL
    queries = points[:, :30] + VOXEL / 8
    here = net(crops(points), queries)
    for shift in (VOXEL, 1024.0):  # of the box too, so even by one voxel
        there = net(crops(points + shift, shift, shift + SIDE * VOXEL), queries + shift)
        assert torch.equal(here, there)
    assert here.std() > 0.01


def test_logits_inside_a_crop_shift_only_nearly() -> None:
    """Sampling puts the outermost cells' centers on the box's faces, as trained weights expect.

    So a query that moves by k voxels moves by k (R - 1) / R cells of features.
    """
    net = network("crops", ("grid",))
    points = points_in_middle_cells() * VOXEL
    queries, shift = points[:, :30], FACTOR * VOXEL
    here, there = net(crops(points), queries), net(crops(points + shift), queries + shift)
    assert (there - here).abs().max() > 1e-3
    cell_numbers = torch.arange(SIDE).double().expand(1, 1, SIDE, SIDE, SIDE)
    read = [
        sample_grid(cell_numbers, positions / (SIDE * VOXEL), "linear")
        for positions in (queries, queries + shift)
    ]
    moved = torch.full_like(read[0], FACTOR * (SIDE - 1) / SIDE)
    torch.testing.assert_close(read[1] - read[0], moved)
