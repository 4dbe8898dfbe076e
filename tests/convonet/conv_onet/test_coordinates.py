"""Where positions fall: values by hand, and each convention of the original."""

import math

import pytest
import torch

from convonet.conv_onet.coordinates import (
    AXES,
    PROJECTIONS,
    Projection,
    cell_index,
    flat_cell_index,
    local_coordinates,
    normalize_coordinate,
    normalize_in_bounds,
    position_size,
)
from convonet.conv_onet.patch_encoder import CropInputs, crop_resolution

POINT = torch.tensor([[[-0.55, 0.11, 0.4]]])


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        ("xz", (-0.55 / 1.10001 + 0.5, 0.4 / 1.10001 + 0.5)),
        ("xy", (-0.55 / 1.10001 + 0.5, 0.11 / 1.10001 + 0.5)),
        ("yz", (0.11 / 1.10001 + 0.5, 0.4 / 1.10001 + 0.5)),
        ("grid", (-0.55 / 1.101 + 0.5, 0.11 / 1.101 + 0.5, 0.4 / 1.101 + 0.5)),
    ],
)
def test_projections_keep_their_axes_and_margins(projection: Projection, expected: tuple[float, ...]) -> None:
    normalized = normalize_coordinate(POINT, projection, 0.1)
    torch.testing.assert_close(normalized[0, 0], torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_positions_outside_move_into_the_outermost_cells(projection: Projection) -> None:
    far = torch.tensor([[[9.0, 9.0, 9.0], [-9.0, -9.0, -9.0], [0.55, 0.55, 0.55], [-0.55, -0.55, -0.55]]])
    normalized = normalize_coordinate(far, projection, 0.1)
    top = 1 - (1e-3 if projection == "grid" else 1e-5)
    assert normalized[0, 0].tolist() == pytest.approx([top] * len(AXES[projection]), abs=1e-7)
    assert normalized[0, 1].tolist() == [0.0] * len(AXES[projection])
    cells = cell_index(normalized, 64)[0]
    last = 64 ** len(AXES[projection]) - 1
    assert cells.tolist() == [last, 0, last, 0]


def test_the_first_axis_of_a_cell_varies_fastest() -> None:
    coordinate = torch.tensor([[[0.26, 0.51, 0.99]]])
    assert cell_index(coordinate, 4).tolist() == [[1 + 4 * (2 + 4 * 3)]]
    assert cell_index(coordinate[..., :2], 4).tolist() == [[1 + 4 * 2]]


def test_cells_of_a_batch_are_numbered_item_after_item() -> None:
    index = torch.tensor([[0, 5], [3, 63]])
    assert flat_cell_index(index, 8, "xy").tolist() == [0, 5, 64 + 3, 64 + 63]
    assert flat_cell_index(index, 4, "grid").tolist() == [0, 5, 64 + 3, 64 + 63]


def test_inputs_are_left_alone() -> None:
    points = torch.rand(2, 30, 3) * 4 - 2
    before = points.clone()
    normalize_coordinate(points, "grid", 0.1)
    normalize_coordinate(points, "yz", 0.1)
    normalize_in_bounds(points, torch.zeros(2, 3), torch.ones(2, 3), "xy")
    assert torch.equal(points, before)


def test_every_crop_is_scaled_by_its_own_box() -> None:
    lower, upper = torch.tensor([[0.0, 0, 0], [10.0, 20, 30]]), torch.tensor([[1.0, 2, 4], [20.0, 40, 34]])
    points = torch.tensor([[[0.5, 0.5, 5.0]], [[10.0, 30.0, 33.0]]])
    scaled = normalize_in_bounds(points, lower, upper, "grid")
    torch.testing.assert_close(scaled, torch.tensor([[[0.5, 0.25, 1.25]], [[0.0, 0.5, 0.75]]]))
    assert torch.equal(normalize_in_bounds(points, lower, upper, "yz"), scaled[..., 1:])


def test_points_outside_a_crop_get_the_cell_past_the_last() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.999, 0.999, 0.999], [1.0, 0.5, 0.5], [0.5, 0.5, -0.001]]])
    crops = CropInputs.in_boxes(points, torch.zeros(1, 3), torch.ones(1, 3), 4, ("grid", "xz"))
    assert crops.index["grid"].tolist() == [[0, 63, 64, 64]]
    assert crops.index["xz"].tolist() == [[0, 15, 16, 16]]  # the second axis decides for all projections
    with pytest.raises(ValueError, match="exceed"):
        CropInputs.in_boxes(points, torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 1.0]]), 4)


def test_crops_have_the_resolutions_of_the_original() -> None:
    # update_reso(query_vol_size + 2 ** (levels + 2) - 1, levels) of the original, worked out by hand
    assert crop_resolution(25, 4) == 88
    assert crop_resolution(90, 4) == 160
    assert crop_resolution(25, 3) == 56
    assert crop_resolution(33, 3) == 64


def test_local_coordinates_repeat_in_every_voxel() -> None:
    positions = torch.tensor([[[0.03, -0.01, 1.0]]])
    inside = local_coordinates(positions, 0.04, "linear")
    torch.testing.assert_close(inside, torch.tensor([[[0.75, 0.75, 0.0]]]), rtol=0, atol=1e-5)
    shifted = local_coordinates(positions + 0.04, 0.04, "linear")
    torch.testing.assert_close(shifted[..., :2], inside[..., :2], rtol=0, atol=1e-5)


def test_sines_and_cosines_go_octave_by_octave() -> None:
    position = torch.tensor([[[0.01, 0.02, 0.035]]], dtype=torch.float64)
    encoded = local_coordinates(position, 0.04, "sin_cos")
    expected = []
    for octave in range(10):
        angles = [2**octave * math.pi * (2 * (value / 0.04) - 1) for value in (0.01, 0.02, 0.035)]
        expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    assert encoded.shape[-1] == position_size("sin_cos") == 60
    torch.testing.assert_close(encoded[0, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)
