"""What the original implementation computes in evaluation mode, straight from its state dict's entries.

Written line by line after its modules, with activations (B, channels, points) where it has them so.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def affine(state: State, name: str, x: Tensor) -> Tensor:
    """A linear layer on (..., channels)."""
    y = x @ state[f"{name}.weight"].flatten(1).T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def conv1(state: State, name: str, x: Tensor) -> Tensor:
    """A convolution of width 1 on (B, channels, points)."""
    return torch.einsum("oi,bip->bop", state[f"{name}.weight"][..., 0], x) + state[f"{name}.bias"][:, None]


def normalized(state: State, name: str, x: Tensor) -> Tensor:
    """(B, channels, ...) with running statistics."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    mean, variance = state[f"{name}.running_mean"].view(shape), state[f"{name}.running_var"].view(shape)
    return (x - mean) / (variance + 1e-5).sqrt()


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    shape = (-1,) + (1,) * (x.ndim - 2)
    weight, bias = state[f"{name}.weight"].view(shape), state[f"{name}.bias"].view(shape)
    return weight * normalized(state, name, x) + bias


def conditional_norm(state: State, name: str, x: Tensor, c: Tensor) -> Tensor:
    kind = "fc" if f"{name}.fc_gamma.weight" in state else "conv"
    gamma = affine(state, f"{name}.{kind}_gamma", c)[:, :, None]
    beta = affine(state, f"{name}.{kind}_beta", c)[:, :, None]
    return gamma * normalized(state, f"{name}.bn", x) + beta


def conditional_block(state: State, name: str, x: Tensor, c: Tensor) -> Tensor:
    net = conv1(state, f"{name}.fc_0", torch.relu(conditional_norm(state, f"{name}.bn_0", x, c)))
    return x + conv1(state, f"{name}.fc_1", torch.relu(conditional_norm(state, f"{name}.bn_1", net, c)))


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def cbatchnorm(state: State, p: Tensor, z: Tensor, c: Tensor, is_leaky: bool = False) -> Tensor:
    net = conv1(state, "decoder.fc_p", p.transpose(1, 2))
    if "decoder.fc_z.weight" in state:
        net = net + affine(state, "decoder.fc_z", z)[:, :, None]
    for i in range(5):
        net = conditional_block(state, f"decoder.block{i}", net, c)
    net = conditional_norm(state, "decoder.bn", net, c)
    return conv1(state, "decoder.fc_out", leaky(net) if is_leaky else torch.relu(net))[:, 0]


def cbatchnorm2(state: State, p: Tensor, z: Tensor, c: Tensor, blocks: int) -> Tensor:
    net = conv1(state, "decoder.conv_p", p.transpose(1, 2))
    c = c + affine(state, "decoder.fc_z", z)
    for i in range(blocks):
        net = conditional_block(state, f"decoder.blocks.{i}", net, c)
    return conv1(state, "decoder.conv_out", torch.relu(conditional_norm(state, "decoder.bn", net, c)))[:, 0]


def cbatchnorm_noresnet(state: State, p: Tensor, z: Tensor, c: Tensor) -> Tensor:
    net = conv1(state, "decoder.fc_p", p.transpose(1, 2))
    if "decoder.fc_z.weight" in state:
        net = net + affine(state, "decoder.fc_z", z)[:, :, None]
    for i in range(5):
        net = torch.relu(conditional_norm(state, f"decoder.bn_{i}", net, c))
        net = conv1(state, f"decoder.fc_{i}", net)
    net = torch.relu(conditional_norm(state, "decoder.bn_5", net, c))
    return conv1(state, "decoder.fc_out", net)[:, 0]


def batchnorm(state: State, p: Tensor, z: Tensor, c: Tensor) -> Tensor:
    net = conv1(state, "decoder.fc_p", p.transpose(1, 2))
    if "decoder.fc_z.weight" in state:
        net = net + affine(state, "decoder.fc_z", z)[:, :, None]
    net = net + affine(state, "decoder.fc_c", c)[:, :, None]
    for i in range(5):
        name = f"decoder.block{i}"
        hidden = conv1(state, f"{name}.fc_0", torch.relu(batch_norm(state, f"{name}.bn_0", net)))
        net = net + conv1(state, f"{name}.fc_1", torch.relu(batch_norm(state, f"{name}.bn_1", hidden)))
    return conv1(state, "decoder.fc_out", torch.relu(batch_norm(state, "decoder.bn", net)))[:, 0]


def resnet_block_fc(state: State, name: str, x: Tensor) -> Tensor:
    net = affine(state, f"{name}.fc_0", torch.relu(x))
    shortcut = affine(state, f"{name}.shortcut", x) if f"{name}.shortcut.weight" in state else x
    return shortcut + affine(state, f"{name}.fc_1", torch.relu(net))


def simple(state: State, p: Tensor, z: Tensor, c: Tensor) -> Tensor:
    net = affine(state, "decoder.fc_p", p)
    if "decoder.fc_z.weight" in state:
        net = net + affine(state, "decoder.fc_z", z)[:, None]
    if "decoder.fc_c.weight" in state:
        net = net + affine(state, "decoder.fc_c", c)[:, None]
    for i in range(5):
        net = resnet_block_fc(state, f"decoder.block{i}", net)
    return affine(state, "decoder.fc_out", torch.relu(net))[..., 0]


def latent_encoder(
    state: State, p: Tensor, occ: Tensor, c: Tensor, is_leaky: bool = False
) -> tuple[Tensor, Tensor]:
    def activate(x: Tensor) -> Tensor:
        return leaky(x) if is_leaky else torch.relu(x)

    def pool(x: Tensor) -> Tensor:
        return x.mean(1) if is_leaky else x.max(1).values

    net = affine(state, "encoder_latent.fc_0", occ[:, :, None]) + affine(state, "encoder_latent.fc_pos", p)
    if "encoder_latent.fc_c.weight" in state:
        net = net + affine(state, "encoder_latent.fc_c", c)[:, None]
    net = affine(state, "encoder_latent.fc_1", activate(net))
    for i in (2, 3):
        net = torch.cat([net, pool(net)[:, None].repeat(1, net.shape[1], 1)], dim=2)
        net = affine(state, f"encoder_latent.fc_{i}", activate(net))
    return affine(state, "encoder_latent.fc_mean", pool(net)), affine(
        state, "encoder_latent.fc_logstd", pool(net)
    )


def with_maximum(net: Tensor) -> Tensor:
    return torch.cat([net, net.max(1, keepdim=True).values.repeat(1, net.shape[1], 1)], dim=2)


def resnet_pointnet(state: State, p: Tensor) -> Tensor:
    net = resnet_block_fc(state, "encoder.block_0", affine(state, "encoder.fc_pos", p))
    for i in range(1, 5):
        net = resnet_block_fc(state, f"encoder.block_{i}", with_maximum(net))
    return affine(state, "encoder.fc_c", torch.relu(net.max(1).values))


def simple_pointnet(state: State, p: Tensor) -> Tensor:
    net = affine(state, "encoder.fc_0", torch.relu(affine(state, "encoder.fc_pos", p)))
    for i in range(1, 4):
        net = affine(state, f"encoder.fc_{i}", torch.relu(with_maximum(net)))
    return affine(state, "encoder.fc_c", torch.relu(net.max(1).values))


def voxel_encoder(state: State, x: Tensor) -> Tensor:
    def conv(name: str, x: Tensor, stride: int) -> Tensor:
        return functional.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride, padding=1)

    net = conv("encoder.conv_in", x.unsqueeze(1), 1)
    for i in range(4):
        net = conv(f"encoder.conv_{i}", torch.relu(net), 2)
    return affine(state, "encoder.fc", torch.relu(net.reshape(len(x), 512 * 2 * 2 * 2)))


def basic_block(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    out = functional.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
    out = torch.relu(batch_norm(state, f"{name}.bn1", out))
    out = functional.conv2d(out, state[f"{name}.conv2.weight"], padding=1)
    out = batch_norm(state, f"{name}.bn2", out)
    if f"{name}.downsample.0.weight" in state:
        x = functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = batch_norm(state, f"{name}.downsample.1", x)
    return torch.relu(out + x)


def resnet18(state: State, prefix: str, x: Tensor) -> Tensor:
    """torchvision's resnet18 with an identity for its classifier."""
    x = functional.conv2d(x, state[f"{prefix}conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(torch.relu(batch_norm(state, f"{prefix}bn1", x)), 3, stride=2, padding=1)
    for layer in range(1, 5):
        for block in range(2):
            stride = 2 if layer > 1 and block == 0 else 1
            x = basic_block(state, f"{prefix}layer{layer}.{block}", x, stride)
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def image_encoder(state: State, images: Tensor) -> Tensor:
    x = images.clone()
    x[:, 0] = (x[:, 0] - 0.485) / 0.229
    x[:, 1] = (x[:, 1] - 0.456) / 0.224
    x[:, 2] = (x[:, 2] - 0.406) / 0.225
    return affine(state, "encoder.fc", resnet18(state, "encoder.features.", x))
