"""Weights of the original repository: every entry is used, none is lacking, and the outputs are the original's."""

from dataclasses import replace

import pytest
import torch

from convonet.conv_onet import PRESETS, ConvOnet, CropInputs, from_original
from convonet.conv_onet.presets import THREE_PLANES
from convonet.errors import WeightsError
from tests.convonet.conv_onet import original_forward
from tests.convonet.conv_onet.original_entries import ORIGINALS, random_state

PLANES_AND_VOLUME = {"plane_resolution": 16, "volume_resolution": 16}  # entries do not depend on resolutions
TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


def imported(preset: str, **changes: object) -> tuple[ConvOnet, dict[str, torch.Tensor]]:
    state = random_state(ORIGINALS[preset])
    config = replace(PRESETS[preset], **changes)
    network = config.build()
    network.load_state_dict(from_original(state, config))
    return network.eval().requires_grad_(False), state


def uniform(count: int, side: float, seed: int) -> torch.Tensor:
    return (torch.rand(2, count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * side


def test_the_presets_are_those_of_the_original() -> None:
    assert set(PRESETS) == set(ORIGINALS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_entry_of_the_original_is_used_once(preset: str) -> None:
    state = random_state(ORIGINALS[preset])
    ours = from_original(state, PRESETS[preset])
    assert sum(value.numel() for value in ours.values()) == sum(value.numel() for value in state.values())
    given = sorted(float(value.double().sum()) for value in state.values())
    assert sorted(float(value.double().sum()) for value in ours.values()) == pytest.approx(given, abs=1e-6)
    expected = PRESETS[preset].build().state_dict()
    assert {name: (value.shape, value.dtype) for name, value in ours.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_a_wrong_entry_is_refused_by_name_and_shape(preset: str) -> None:
    state = random_state(ORIGINALS[preset])
    middle = sorted(name for name, value in state.items() if value.dim() > 1)[len(state) // 5]
    without = {name: value for name, value in state.items() if name != middle}
    with pytest.raises(WeightsError, match=f"missing: {middle} ") as refusal:
        from_original(without, PRESETS[preset])
    assert str(tuple(state[middle].shape)) in str(refusal.value)
    with pytest.raises(WeightsError, match=r"unexpected: encoder\.extra\.weight \(3, 2\)"):
        from_original({**state, "encoder.extra.weight": torch.zeros(3, 2)}, PRESETS[preset])
    wider = torch.zeros(state[middle].shape[0] + 1, *state[middle].shape[1:])
    with pytest.raises(WeightsError, match=middle) as refusal:
        from_original({**state, middle: wider}, PRESETS[preset])
    assert f"{tuple(wider.shape)} instead of {tuple(state[middle].shape)}" in str(refusal.value)


def test_all_complaints_come_at_once() -> None:
    state = random_state(ORIGINALS["shapenet_3plane"])
    with pytest.raises(WeightsError) as refusal:
        from_original(state, PRESETS["shapenet_grid32"])
    message = str(refusal.value)
    assert all(f"{name} " in message for name in state if ".unet." in name)
    assert "encoder.unet3d.final_conv.bias (32,); unexpected: encoder.unet.down_convs" in message


@pytest.mark.parametrize(
    ("preset", "resolutions"),
    [
        ("shapenet_1plane", {"xz": 16}),
        ("shapenet_3plane", dict.fromkeys(THREE_PLANES, 16)),
        ("shapenet_grid32", {"grid": 16}),
        ("room_3plane", dict.fromkeys(THREE_PLANES, 16)),
        ("room_grid64", {"grid": 16}),
        ("room_combine", {**dict.fromkeys(THREE_PLANES, 16), "grid": 16}),
    ],
)
def test_logits_of_point_networks_are_the_originals(preset: str, resolutions: dict[str, int]) -> None:
    network, state = imported(preset, **PLANES_AND_VOLUME)
    points, queries = uniform(150, 1.15, 1), uniform(30, 1.2, 2)  # some beyond the padding: they are clamped
    logits = network(points, queries)
    assert logits.std() > 0.02
    for item in (0, 1):
        expected = original_forward.points_network(points[item], queries[item], state, resolutions)
        torch.testing.assert_close(logits[item], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("preset", "resolutions"),
    [("voxel_shapenet_3plane", dict.fromkeys(THREE_PLANES, 16)), ("voxel_shapenet_grid32", {"grid": 16})],
)
def test_logits_of_voxel_networks_are_the_originals(preset: str, resolutions: dict[str, int]) -> None:
    network, state = imported(preset, **PLANES_AND_VOLUME)
    voxels = (torch.rand(2, 9, 10, 11, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    queries = uniform(30, 1.2, 4)
    logits = network(voxels, queries)
    assert logits.std() > 0.02
    for item in (0, 1):
        expected = original_forward.voxels_network(voxels[item], queries[item], state, resolutions)
        torch.testing.assert_close(logits[item], expected, **TOLERANCE)


def test_logits_of_crop_networks_are_the_originals() -> None:
    network, state = imported("crop_room_grid64", unit_size=0.02)
    points, queries = uniform(250, 0.5, 5), uniform(30, 0.3, 6)  # about a fifth of the points are outside
    lower = torch.tensor([[-0.13, -0.17, -0.151], [-0.2, -0.14, -0.16]])
    upper = lower + 16 * 0.02
    logits = network(CropInputs.in_boxes(points, lower, upper, 16), queries)
    assert logits.std() > 0.02
    for item in (0, 1):
        expected = original_forward.crop_network(
            points[item], queries[item], state, lower[item], upper[item], 16, 0.02
        )
        torch.testing.assert_close(logits[item], expected, **TOLERANCE)


@pytest.mark.parametrize("preset", ["shapenet_pointconv", "room_pointconv"])
def test_logits_of_point_convolutions_are_the_originals(preset: str) -> None:
    network, state = imported(preset)
    points, queries = uniform(600, 1.0, 7), uniform(30, 1.1, 8)
    logits = network(points, queries)
    assert logits.std() > 0.02
    expected = original_forward.pointconv_network(points[0], queries[0], state, 0.2)
    torch.testing.assert_close(logits[0], expected, **TOLERANCE)
