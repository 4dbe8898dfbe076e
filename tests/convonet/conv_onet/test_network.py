"""The configuration and the network as callers meet them: validation, JSON, saving, kinds of inputs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from convonet.conv_onet import PRESETS, ConvOnetConfig, CropInputs


def example_inputs(config: ConvOnetConfig) -> torch.Tensor | CropInputs:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 200, 3, generator=generator) - 0.5
    if config.family == "voxels":
        return (torch.rand(2, 8, 8, 8, generator=generator) < 0.5).float()
    if config.family == "crops":
        box = torch.full((2, 3), 0.5)
        return CropInputs.in_boxes(points, -box, box, 16, config.projections)
    return points


def small(preset: str) -> ConvOnetConfig:
    return replace(
        PRESETS[preset],
        feature_size=8,
        encoder_hidden=8,
        decoder_hidden=8,
        plane_resolution=16,
        volume_resolution=16,
        unet2d_channels=4,
        unet3d_channels=8,
        pointnetpp_width=8,
        fine_centers=16,
        coarse_centers=8,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_survives_saving_and_its_configuration_json(preset: str, tmp_path: Path) -> None:
    config = small(preset)
    network = config.build().eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    restored_config = ConvOnetConfig(**json.loads(json.dumps(asdict(config))))
    assert restored_config == config
    restored = restored_config.build().eval()
    inputs, queries = example_inputs(config), torch.rand(2, 20, 3) - 0.5
    restored.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    logits = network(inputs, queries)
    assert logits.shape == (2, 20)
    assert torch.equal(restored(inputs, queries), logits)
    assert torch.equal(network.decode(network.encode(inputs), queries), logits)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_weight_learns(preset: str) -> None:
    torch.manual_seed(0)
    network = small(preset).build()
    for module in network.modules():  # fresh residual branches end in zeros, which stop the gradient once
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.3)
    inputs, queries = example_inputs(network.config), torch.rand(2, 64, 3) - 0.5
    (network(inputs, queries) * torch.linspace(-1, 1, 64)).sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias ahead of a batch norm cancels out; everything else must move the logits
    assert [name for name in idle if ".linears." not in name] == []


@pytest.mark.parametrize("preset", ["shapenet_3plane", "room_grid64", "shapenet_pointconv"])
def test_items_of_a_batch_do_not_meet(preset: str) -> None:
    config = small(preset)
    network = config.build().eval()
    inputs, queries = example_inputs(config), torch.rand(2, 20, 3) - 0.5
    assert isinstance(inputs, torch.Tensor)
    together = network(inputs, queries)
    for item in (0, 1):
        alone = network(inputs[item : item + 1], queries[item : item + 1])
        torch.testing.assert_close(alone[0], together[item], rtol=1e-4, atol=1e-5)


def test_a_point_network_does_not_depend_on_the_order_of_points() -> None:
    network = small("room_combine").build().eval()
    inputs, queries = example_inputs(network.config), torch.rand(2, 20, 3) - 0.5
    assert isinstance(inputs, torch.Tensor)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        network(inputs[:, order], queries), network(inputs, queries), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "preset", ["shapenet_3plane", "room_grid64", "crop_room_grid64", "shapenet_pointconv"]
)
def test_bfloat16_autocast_stays_near_float32(preset: str) -> None:
    torch.manual_seed(0)
    network = small(preset).build().eval().requires_grad_(False)
    inputs, queries = example_inputs(network.config), torch.rand(2, 500, 3) - 0.5
    exact = network(inputs, queries)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = network(inputs, queries).float()
    assert (fast - exact).square().mean().sqrt() < 0.15 * exact.std()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "meshes"}, "family must be one of points, voxels, crops, pointconv"),
        ({"projections": ("xz", "zx")}, "distinct ones of xz, xy, yz, grid"),
        ({"projections": ("xz", "xz")}, "distinct"),
        ({"projections": ()}, "'points' does not go with"),
        ({"family": "pointconv"}, "'pointconv' does not go with"),
        ({"family": "voxels", "projections": ("xz", "grid")}, "not both"),
        ({"unet2d_levels": 5, "plane_resolution": 40}, "40 cells cannot be halved 4 times"),
        ({"unet2d_levels": -1}, "-1 levels"),
        ({"projections": ("grid",), "unet3d_levels": 2, "feature_size": 12}, "12 is not a multiple of 8"),
        ({"projections": ("grid",), "unet3d_levels": 2, "unet3d_channels": 4}, "4 is not a multiple"),
        ({"feature_size": 0}, "feature_size must be a positive whole number"),
        ({"decoder_blocks": 2.0}, "decoder_blocks must be a positive whole number"),
        ({"padding": -0.1}, "padding must not be negative"),
        ({"unit_size": 0.0}, "unit_size must be positive"),
        ({"gaussian_width": float("nan")}, "gaussian_width must be positive"),
        ({"backend": "cuda"}, "backend must be one of torch, torch_scatter"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ConvOnetConfig("points", ("xz",)), **changes)


@pytest.mark.parametrize(
    ("preset", "inputs", "message"),
    [
        ("shapenet_3plane", torch.zeros(2, 10), r"points must be \(B, N, 3\), not \(2, 10\)"),
        ("shapenet_pointconv", torch.zeros(2, 10, 6), r"points must be \(B, N, 3\)"),
        ("voxel_shapenet_grid32", torch.zeros(8, 8, 8), r"voxels must be \(B, D, H, W\)"),
        ("crop_room_grid64", torch.zeros(2, 10, 3), "takes CropInputs, not Tensor"),
    ],
)
def test_inputs_of_another_kind_are_refused(preset: str, inputs: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(preset).build().encode(inputs)


def test_presets_of_crops_know_their_resolution() -> None:
    config = PRESETS["crop_room_grid64"]
    assert config.crop_resolution == 88
    assert replace(config, unit_size=0.02, query_voxels=90).crop_resolution == 160
