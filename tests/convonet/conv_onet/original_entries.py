"""Names and shapes of the original repository's state dicts, written out from its modules.

autonomousvision/convolutional_occupancy_networks: src/layers.py, src/encoder/*.py, src/conv_onet/models/*.py.
"""

from __future__ import annotations

import re
from itertools import pairwise

import torch

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, size_in: int, size_out: int) -> Shapes:
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}


def resnet_block(name: str, size_in: int, size_out: int) -> Shapes:
    hidden = min(size_in, size_out)
    shapes = {**linear(f"{name}.fc_0", size_in, hidden), **linear(f"{name}.fc_1", hidden, size_out)}
    if size_in != size_out:
        shapes[f"{name}.shortcut.weight"] = (size_out, size_in)
    return shapes


def point_encoder(c_dim: int = 32, hidden: int = 32, blocks: int = 5) -> Shapes:
    shapes = linear("encoder.fc_pos", 3, 2 * hidden)
    for i in range(blocks):
        shapes |= resnet_block(f"encoder.blocks.{i}", 2 * hidden, hidden)
    return shapes | linear("encoder.fc_c", hidden, c_dim)


def voxel_encoder(c_dim: int = 32) -> Shapes:
    return {"encoder.conv_in.weight": (c_dim, 1, 3, 3, 3), "encoder.conv_in.bias": (c_dim,)}


def unet(depth: int, c_dim: int = 32, start_filts: int = 32) -> Shapes:
    def conv(name: str, channels_in: int, channels_out: int, side: int) -> Shapes:
        weight = (channels_out, channels_in, side, side)
        return {f"encoder.unet.{name}.weight": weight, f"encoder.unet.{name}.bias": (channels_out,)}

    shapes: Shapes = {}
    channels_in = c_dim
    for i in range(depth):
        channels_out = start_filts * 2**i
        shapes |= conv(f"down_convs.{i}.conv1", channels_in, channels_out, 3)
        shapes |= conv(f"down_convs.{i}.conv2", channels_out, channels_out, 3)
        channels_in = channels_out
    for i in range(depth - 1):
        channels_out = channels_in // 2
        shapes[f"encoder.unet.up_convs.{i}.upconv.weight"] = (channels_in, channels_out, 2, 2)
        shapes[f"encoder.unet.up_convs.{i}.upconv.bias"] = (channels_out,)
        shapes |= conv(f"up_convs.{i}.conv1", 2 * channels_out, channels_out, 3)
        shapes |= conv(f"up_convs.{i}.conv2", channels_out, channels_out, 3)
        channels_in = channels_out
    return shapes | conv("conv_final", channels_in, c_dim, 1)


def unet3d(levels: int, c_dim: int = 32, f_maps: int = 32) -> Shapes:
    def single_conv(name: str, channels_in: int, channels_out: int) -> Shapes:
        return {
            f"encoder.unet3d.{name}.groupnorm.weight": (channels_in,),
            f"encoder.unet3d.{name}.groupnorm.bias": (channels_in,),
            f"encoder.unet3d.{name}.conv.weight": (channels_out, channels_in, 3, 3, 3),
        }

    maps = [f_maps * 2**k for k in range(levels)]
    shapes: Shapes = {}
    for i, channels_out in enumerate(maps):
        channels_in = c_dim if i == 0 else maps[i - 1]
        between = max(channels_out // 2, channels_in)
        shapes |= single_conv(f"encoders.{i}.basic_module.SingleConv1", channels_in, between)
        shapes |= single_conv(f"encoders.{i}.basic_module.SingleConv2", between, channels_out)
    for i in range(levels - 1):
        coarse, fine = maps[levels - 1 - i], maps[levels - 2 - i]
        shapes |= single_conv(f"decoders.{i}.basic_module.SingleConv1", coarse + fine, fine)
        shapes |= single_conv(f"decoders.{i}.basic_module.SingleConv2", fine, fine)
    shapes["encoder.unet3d.final_conv.weight"] = (c_dim, maps[0], 1, 1, 1)
    shapes["encoder.unet3d.final_conv.bias"] = (c_dim,)
    return shapes


def pointnet_plus_plus(c_dim: int = 32) -> Shapes:
    def layers(name: str, widths: list[int], ones: tuple[int, ...]) -> Shapes:
        shapes: Shapes = {}
        for i, (wide_in, wide) in enumerate(pairwise(widths)):
            shapes[f"encoder.{name}.mlp_convs.{i}.weight"] = (wide, wide_in, *ones)
            shapes[f"encoder.{name}.mlp_convs.{i}.bias"] = (wide,)
            for entry in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"encoder.{name}.mlp_bns.{i}.{entry}"] = (wide,)
            shapes[f"encoder.{name}.mlp_bns.{i}.num_batches_tracked"] = ()
        return shapes

    return {
        **layers("sa1", [6, 64, 64, 128], (1, 1)),
        **layers("sa2", [131, 128, 128, 256], (1, 1)),
        **layers("sa3", [259, 256, 512, 1024], (1, 1)),
        **layers("fp3", [1280, 256, 256], (1,)),
        **layers("fp2", [384, 256, 128], (1,)),
        **layers("fp1", [128, 128, 128, c_dim], (1,)),
    }


def decoder(hidden: int = 32, c_dim: int = 32, blocks: int = 5) -> Shapes:
    shapes = {**linear("decoder.fc_p", 3, hidden), **linear("decoder.fc_out", hidden, 1)}
    for i in range(blocks):
        shapes |= linear(f"decoder.fc_c.{i}", c_dim, hidden)
        shapes |= resnet_block(f"decoder.blocks.{i}", hidden, hidden)
    return shapes


ORIGINALS: dict[str, Shapes] = {
    "shapenet_1plane": point_encoder() | unet(4) | decoder(),
    "shapenet_3plane": point_encoder() | unet(4) | decoder(),
    "shapenet_3plane_partial": point_encoder() | unet(4) | decoder(),
    "shapenet_grid32": point_encoder() | unet3d(3) | decoder(),
    "shapenet_pointconv": pointnet_plus_plus() | decoder(32),
    "room_1plane": point_encoder() | unet(5) | decoder(),
    "room_3plane": point_encoder() | unet(5) | decoder(),
    "room_grid32": point_encoder() | unet3d(3) | decoder(),
    "room_grid64": point_encoder() | unet3d(4) | decoder(),
    "room_combine": point_encoder() | unet(5) | unet3d(3) | decoder(),
    "room_pointconv": pointnet_plus_plus() | decoder(256),
    "voxel_shapenet_1plane": voxel_encoder() | unet(4) | decoder(),
    "voxel_shapenet_3plane": voxel_encoder() | unet(4) | decoder(),
    "voxel_shapenet_grid32": voxel_encoder() | unet3d(3) | decoder(),
    "crop_room_grid64": point_encoder() | unet3d(4) | decoder(),
}


def random_state(shapes: Shapes, seed: int = 7) -> dict[str, torch.Tensor]:
    """A state dict of those shapes: every entry random, so that no layer's absence goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        fan_in = max(1, value[0].numel()) if value.dim() > 1 else 1
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(11)
        elif name.endswith(("running_var", "groupnorm.weight")) or re.search(r"bns\.\d\.weight$", name):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif value.dim() > 1:
            state[name] = value * (1.5 / fan_in) ** 0.5
        else:
            state[name] = 0.1 * value
    return state
