"""Entries of the original implementation's state dicts, written out from its modules, with random values.

autonomousvision/occupancy_networks: im2mesh/layers.py, im2mesh/onet/models/, im2mesh/encoder/.
"""

from __future__ import annotations

import torch
from torch import Tensor

Entries = dict[str, tuple[int, ...]]


def linear(name: str, size_in: int, size_out: int) -> Entries:
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}


def conv1d(name: str, size_in: int, size_out: int) -> Entries:
    return {f"{name}.weight": (size_out, size_in, 1), f"{name}.bias": (size_out,)}


def statistics(name: str, size: int) -> Entries:
    return {
        f"{name}.running_mean": (size,),
        f"{name}.running_var": (size,),
        f"{name}.num_batches_tracked": (),
    }


def batch_norm(name: str, size: int) -> Entries:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,), **statistics(name, size)}


def conditional_norm(name: str, features: int, size: int) -> Entries:
    return {
        **conv1d(f"{name}.conv_gamma", features, size),
        **conv1d(f"{name}.conv_beta", features, size),
        **statistics(f"{name}.bn", size),
    }


def legacy_norm(name: str, features: int, size: int) -> Entries:
    return {
        **linear(f"{name}.fc_gamma", features, size),
        **linear(f"{name}.fc_beta", features, size),
        **statistics(f"{name}.bn", size),
    }


def conditional_decoder(features: int, hidden: int, latent: int = 0, is_legacy: bool = False) -> Entries:
    """DecoderCBatchNorm."""
    norm = legacy_norm if is_legacy else conditional_norm
    entries = linear("decoder.fc_z", latent, hidden) if latent else {}
    entries |= conv1d("decoder.fc_p", 3, hidden)
    for i in range(5):
        entries |= norm(f"decoder.block{i}.bn_0", features, hidden)
        entries |= norm(f"decoder.block{i}.bn_1", features, hidden)
        entries |= conv1d(f"decoder.block{i}.fc_0", hidden, hidden)
        entries |= conv1d(f"decoder.block{i}.fc_1", hidden, hidden)
    return entries | norm("decoder.bn", features, hidden) | conv1d("decoder.fc_out", hidden, 1)


def conditional_decoder_2(features: int, hidden: int, latent: int, blocks: int) -> Entries:
    """DecoderCBatchNorm2."""
    entries = linear("decoder.fc_z", latent, features) if latent else {}
    entries |= conv1d("decoder.conv_p", 3, hidden)
    for i in range(blocks):
        entries |= conditional_norm(f"decoder.blocks.{i}.bn_0", features, hidden)
        entries |= conditional_norm(f"decoder.blocks.{i}.bn_1", features, hidden)
        entries |= conv1d(f"decoder.blocks.{i}.fc_0", hidden, hidden)
        entries |= conv1d(f"decoder.blocks.{i}.fc_1", hidden, hidden)
    return entries | conditional_norm("decoder.bn", features, hidden) | conv1d("decoder.conv_out", hidden, 1)


def conditional_decoder_without_blocks(features: int, hidden: int, latent: int) -> Entries:
    """DecoderCBatchNormNoResnet."""
    entries = linear("decoder.fc_z", latent, hidden) if latent else {}
    entries |= conv1d("decoder.fc_p", 3, hidden)
    for i in range(5):
        entries |= conv1d(f"decoder.fc_{i}", hidden, hidden)
    for i in range(6):
        entries |= conditional_norm(f"decoder.bn_{i}", features, hidden)
    return entries | conv1d("decoder.fc_out", hidden, 1)


def batch_norm_decoder(features: int, hidden: int, latent: int) -> Entries:
    """DecoderBatchNorm."""
    entries = linear("decoder.fc_z", latent, hidden) if latent else {}
    entries |= linear("decoder.fc_c", features, hidden) if features else {}
    entries |= conv1d("decoder.fc_p", 3, hidden)
    for i in range(5):
        entries |= batch_norm(f"decoder.block{i}.bn_0", hidden) | batch_norm(f"decoder.block{i}.bn_1", hidden)
        entries |= conv1d(f"decoder.block{i}.fc_0", hidden, hidden)
        entries |= conv1d(f"decoder.block{i}.fc_1", hidden, hidden)
    return entries | batch_norm("decoder.bn", hidden) | conv1d("decoder.fc_out", hidden, 1)


def simple_decoder(features: int, hidden: int, latent: int) -> Entries:
    """Decoder."""
    entries = linear("decoder.fc_p", 3, hidden)
    entries |= linear("decoder.fc_z", latent, hidden) if latent else {}
    entries |= linear("decoder.fc_c", features, hidden) if features else {}
    for i in range(5):
        entries |= linear(f"decoder.block{i}.fc_0", hidden, hidden)
        entries |= linear(f"decoder.block{i}.fc_1", hidden, hidden)
    return entries | linear("decoder.fc_out", hidden, 1)


def latent_encoder(latent: int, features: int) -> Entries:
    """encoder_latent.Encoder, of width 128."""
    entries = linear("encoder_latent.fc_pos", 3, 128)
    entries |= linear("encoder_latent.fc_c", features, 128) if features else {}
    entries |= linear("encoder_latent.fc_0", 1, 128) | linear("encoder_latent.fc_1", 128, 128)
    entries |= linear("encoder_latent.fc_2", 256, 128) | linear("encoder_latent.fc_3", 256, 128)
    return (
        entries
        | linear("encoder_latent.fc_mean", 128, latent)
        | linear("encoder_latent.fc_logstd", 128, latent)
    )


def resnet_pointnet(features: int, hidden: int) -> Entries:
    """pointnet.ResnetPointnet."""
    entries = linear("encoder.fc_pos", 3, 2 * hidden)
    for i in range(5):
        entries |= linear(f"encoder.block_{i}.fc_0", 2 * hidden, hidden)
        entries |= linear(f"encoder.block_{i}.fc_1", hidden, hidden)
        entries[f"encoder.block_{i}.shortcut.weight"] = (hidden, 2 * hidden)
    return entries | linear("encoder.fc_c", hidden, features)


def simple_pointnet(features: int, hidden: int) -> Entries:
    """pointnet.SimplePointnet."""
    entries = linear("encoder.fc_pos", 3, 2 * hidden)
    for i in range(4):
        entries |= linear(f"encoder.fc_{i}", 2 * hidden, hidden)
    return entries | linear("encoder.fc_c", hidden, features)


def voxel_encoder(features: int) -> Entries:
    """voxels.VoxelEncoder."""
    widths = {"in": (1, 32), "0": (32, 64), "1": (64, 128), "2": (128, 256), "3": (256, 512)}
    entries: Entries = {}
    for key, (narrow, wide) in widths.items():
        entries[f"encoder.conv_{key}.weight"] = (wide, narrow, 3, 3, 3)
        entries[f"encoder.conv_{key}.bias"] = (wide,)
    return entries | linear("encoder.fc", 4096, features)


def resnet18(prefix: str = "") -> Entries:
    """torchvision's resnet18 without its classifier."""
    entries: Entries = {f"{prefix}conv1.weight": (64, 3, 7, 7)} | batch_norm(f"{prefix}bn1", 64)
    for layer, (narrow, wide) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
        for block in range(2):
            name = f"{prefix}layer{layer}.{block}"
            entries[f"{name}.conv1.weight"] = (wide, wide if block else narrow, 3, 3)
            entries |= batch_norm(f"{name}.bn1", wide)
            entries[f"{name}.conv2.weight"] = (wide, wide, 3, 3)
            entries |= batch_norm(f"{name}.bn2", wide)
            if layer > 1 and block == 0:
                entries[f"{name}.downsample.0.weight"] = (wide, narrow, 1, 1)
                entries |= batch_norm(f"{name}.downsample.1", wide)
    return entries


PRESET_ENTRIES: dict[str, Entries] = {
    "onet_img": resnet18("encoder.features.")
    | linear("encoder.fc", 512, 256)
    | conditional_decoder(256, 256),
    "onet_img_nocbn": resnet18("encoder.features.")
    | linear("encoder.fc", 512, 256)
    | batch_norm_decoder(256, 256, 0),
    "onet_img_noresnet": resnet18("encoder.features.")
    | linear("encoder.fc", 512, 256)
    | conditional_decoder_without_blocks(256, 256, 0),
    "onet_pointcloud": resnet_pointnet(512, 512) | conditional_decoder(512, 256),
    "onet_voxel": voxel_encoder(256) | conditional_decoder(256, 256),
    "onet_unconditional": simple_decoder(0, 128, 128) | latent_encoder(128, 0),
    "onet_repr_power": {"encoder.weight": (4746, 512)} | conditional_decoder(512, 256, is_legacy=True),
}


def random_state(entries: Entries, seed: int) -> dict[str, Tensor]:
    """Values of the size that keeps activations of the order of 1, no layer at zero."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in entries.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 0.5 + noise.abs()
        elif len(shape) > 1:
            state[name] = noise * (shape[1] * noise[0, 0].numel()) ** -0.5
        else:
            state[name] = 0.3 * noise + (1.0 if ".bn" in name and name.endswith("weight") else 0.0)
    return state
