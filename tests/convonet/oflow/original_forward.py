"""The original networks, written as straight lines over a state dict with the original's names.

Shapes of every entry, and what each part computes from them: plain arithmetic, nothing of the package.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


def linear_shapes(name: str, size_in: int, size_out: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (size_out, size_in)} | ({f"{name}.bias": (size_out,)} if bias else {})


def conv1_shapes(name: str, size_in: int, size_out: int) -> Shapes:
    return {f"{name}.weight": (size_out, size_in, 1), f"{name}.bias": (size_out,)}


def block_shapes(name: str, size_in: int, size_out: int) -> Shapes:
    hidden = min(size_in, size_out)
    shapes = linear_shapes(f"{name}.fc_0", size_in, hidden) | linear_shapes(f"{name}.fc_1", hidden, size_out)
    return shapes | (
        linear_shapes(f"{name}.shortcut", size_in, size_out, False) if size_in != size_out else {}
    )


def pointnet_shapes(name: str, point_size: int, hidden: int, code: int) -> Shapes:
    shapes = linear_shapes(f"{name}.fc_pos", point_size, 2 * hidden)
    for i in range(5):
        shapes |= block_shapes(f"{name}.block_{i}", 2 * hidden, hidden)
    return shapes | linear_shapes(f"{name}.fc_c", hidden, code)


def latent_shapes(name: str, point_size: int, hidden: int, latent: int) -> Shapes:
    shapes = linear_shapes(f"{name}.fc_pos", point_size, 2 * hidden)
    for i in range(3):
        shapes |= block_shapes(f"{name}.blocks.{i}", 2 * hidden, hidden)
    for head in ("fc_mean", "fc_logstd"):
        shapes |= linear_shapes(f"{name}.{head}", hidden, latent)
    return shapes


def norm_shapes(name: str, features: int, affine: bool) -> Shapes:
    shapes: Shapes = {f"{name}.{part}": (features,) for part in ("running_mean", "running_var")}
    shapes |= {f"{name}.{part}": (features,) for part in ("weight", "bias")} if affine else {}
    return shapes | {f"{name}.num_batches_tracked": ()}


def conditional_norm_shapes(name: str, code: int, features: int, legacy: bool) -> Shapes:
    shapes = norm_shapes(f"{name}.bn", features, affine=False)
    for part in ("gamma", "beta"):
        one = linear_shapes(f"{name}.fc_{part}", code, features)
        shapes |= one if legacy else conv1_shapes(f"{name}.conv_{part}", code, features)
    return shapes


def conditional_decoder_shapes(point_size: int, code: int, hidden: int, legacy: bool) -> Shapes:
    shapes = conv1_shapes("decoder.fc_p", point_size, hidden)
    for i in range(5):
        for part in ("bn_0", "bn_1"):
            shapes |= conditional_norm_shapes(f"decoder.block{i}.{part}", code, hidden, legacy)
        for part in ("fc_0", "fc_1"):
            shapes |= conv1_shapes(f"decoder.block{i}.{part}", hidden, hidden)
    shapes |= conditional_norm_shapes("decoder.bn", code, hidden, legacy)
    return shapes | conv1_shapes("decoder.fc_out", hidden, 1)


def simple_decoder_shapes(latent: int, hidden: int) -> Shapes:
    shapes = linear_shapes("decoder.fc_p", 3, hidden)
    shapes |= linear_shapes("decoder.fc_z", latent, hidden) if latent else {}
    for i in range(5):
        shapes |= block_shapes(f"decoder.block{i}", hidden, hidden)
    return shapes | linear_shapes("decoder.fc_out", hidden, 1)


def velocity_shapes(code: int, latent: int, hidden: int, blocks: int) -> Shapes:
    shapes = linear_shapes("vector_field.fc_p", 4, hidden)
    for i in range(blocks):
        shapes |= linear_shapes(f"vector_field.fc_c.{i}", code, hidden) if code else {}
        shapes |= linear_shapes(f"vector_field.fc_z.{i}", latent, hidden) if latent else {}
        shapes |= block_shapes(f"vector_field.blocks.{i}", hidden, hidden)
    return shapes | linear_shapes("vector_field.fc_out", hidden, 3)


def resnet18_shapes(code: int) -> Shapes:
    root = "encoder.features"
    shapes: Shapes = {f"{root}.conv1.weight": (64, 3, 7, 7)} | norm_shapes(f"{root}.bn1", 64, True)
    width = 64
    for layer, size in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            name = f"{root}.layer{layer}.{block}"
            shapes |= {
                f"{name}.conv1.weight": (size, width, 3, 3),
                f"{name}.conv2.weight": (size, size, 3, 3),
            }
            shapes |= norm_shapes(f"{name}.bn1", size, True) | norm_shapes(f"{name}.bn2", size, True)
            if layer > 1 and block == 0:
                shapes |= {f"{name}.downsample.0.weight": (size, width, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", size, True)
            width = size
    return shapes | linear_shapes("encoder.fc", 512, code)


def conv3d_shapes(code: int, hidden: int) -> Shapes:
    shapes: Shapes = {}
    widths = [3, hidden, 2 * hidden, 4 * hidden, 8 * hidden, 16 * hidden, 16 * hidden]
    for i in range(6):
        shapes[f"encoder_temporal.conv{i}.weight"] = (widths[i + 1], widths[i], 3, 3, 3)
        shapes[f"encoder_temporal.conv{i}.bias"] = (widths[i + 1],)
    return shapes | linear_shapes("encoder_temporal.fc_out", 16 * hidden, code)


def image_shapes() -> Shapes:
    shapes = resnet18_shapes(256) | conv3d_shapes(256, 32) | velocity_shapes(256, 0, 512, 5)
    return shapes | conditional_decoder_shapes(3, 256, 256, legacy=True)


def point_shapes(hidden: int, code: int) -> Shapes:
    shapes = pointnet_shapes("encoder", 3, hidden, code)
    shapes |= pointnet_shapes("encoder_temporal", 51, hidden, code) | velocity_shapes(code, 0, hidden, 5)
    return shapes | conditional_decoder_shapes(3, code, 256, legacy=False)


def pair_shapes() -> Shapes:
    return pointnet_shapes("encoder_temporal.resnet_pointnet", 3, 512, 256) | velocity_shapes(512, 0, 512, 5)


ORIGINALS: dict[str, Shapes] = {
    "oflow_pointcloud": point_shapes(hidden=128, code=128),
    "oflow_pointcloud_w_correspond": point_shapes(hidden=512, code=512),
    "oflow_img": image_shapes(),
    "oflow_img_w_correspond": image_shapes(),
    "oflow_generative": latent_shapes("encoder_latent", 3, 128, 128)
    | latent_shapes("encoder_latent_temporal", 51, 128, 128)
    | velocity_shapes(0, 128, 128, 3)
    | simple_decoder_shapes(latent=128, hidden=128),
    "oflow_interpolation": pair_shapes(),
    "oflow_shape_matching": pair_shapes(),
    "oflow_repr_power": velocity_shapes(0, 0, 128, 5) | simple_decoder_shapes(latent=0, hidden=128),
    "onet4d_pointcloud": pointnet_shapes("encoder_temporal", 51, 512, 512)
    | conditional_decoder_shapes(4, 512, 256, legacy=False),
    "onet4d_img": conv3d_shapes(256, 32) | conditional_decoder_shapes(4, 256, 256, legacy=True),
}
"""Names and shapes of the original's state dict for each of its configurations."""


def random_state(shapes: Shapes, seed: int) -> State:
    """Weights that keep signals of order 1 through every layer, so that each one matters."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        elif len(shape) > 1:
            fan_in = int(torch.tensor(shape[1:]).prod())
            state[name] = torch.randn(shape, generator=generator) * fan_in**-0.5
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.3
    return state


def linear(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    out = x @ weight.reshape(weight.shape[0], -1).T
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def block(state: State, name: str, x: Tensor) -> Tensor:
    dx = linear(state, f"{name}.fc_1", linear(state, f"{name}.fc_0", x.relu()).relu())
    return (linear(state, f"{name}.shortcut", x) if f"{name}.shortcut.weight" in state else x) + dx


def pool_and_append(net: Tensor) -> Tensor:
    return torch.cat([net, net.max(dim=1, keepdim=True).values.repeat(1, net.shape[1], 1)], dim=2)


def pointnet(state: State, name: str, points: Tensor) -> Tensor:
    """(B, N, D) points: pooled features are appended after each block but the last."""
    net = linear(state, f"{name}.fc_pos", points)
    net = pool_and_append(block(state, f"{name}.block_0", net))
    net = pool_and_append(block(state, f"{name}.block_1", net))
    net = pool_and_append(block(state, f"{name}.block_2", net))
    net = pool_and_append(block(state, f"{name}.block_3", net))
    net = block(state, f"{name}.block_4", net).max(dim=1).values
    return linear(state, f"{name}.fc_c", net.relu())


def trajectories(sequence: Tensor) -> Tensor:
    """(B, L, N, 3) to (B, N, 3 L): x, y, z of frame 0, then of frame 1, ..."""
    return torch.cat([sequence[:, frame] for frame in range(sequence.shape[1])], dim=-1)


def latent(state: State, name: str, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the deviation; no activation before the heads."""
    net = linear(state, f"{name}.fc_pos", points)
    net = pool_and_append(block(state, f"{name}.blocks.0", net))
    net = pool_and_append(block(state, f"{name}.blocks.1", net))
    net = block(state, f"{name}.blocks.2", net).max(dim=1).values
    return linear(state, f"{name}.fc_mean", net), linear(state, f"{name}.fc_logstd", net)


def velocity(state: State, points: Tensor, times: Tensor, code: Tensor, motion: Tensor) -> Tensor:
    """(B, N, 3) velocities: codes are added before every block."""
    net = linear(
        state, "vector_field.fc_p", torch.cat([points, times[:, None, None] + 0 * points[..., :1]], -1)
    )
    blocks = sum(name.endswith("fc_0.weight") for name in state if name.startswith("vector_field.blocks"))
    for i in range(blocks):
        if f"vector_field.fc_c.{i}.weight" in state:
            net = net + linear(state, f"vector_field.fc_c.{i}", code)[:, None]
        if f"vector_field.fc_z.{i}.weight" in state:
            net = net + linear(state, f"vector_field.fc_z.{i}", motion)[:, None]
        net = block(state, f"vector_field.blocks.{i}", net)
    return linear(state, "vector_field.fc_out", net.relu())


def conditional_norm(state: State, name: str, x: Tensor, code: Tensor) -> Tensor:
    """Inference mode, (B, N, F)."""
    kind = "fc" if f"{name}.fc_gamma.weight" in state else "conv"
    mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
    normal = (x - mean) / (variance + 1e-5).sqrt()
    gamma = linear(state, f"{name}.{kind}_gamma", code)[:, None]
    return gamma * normal + linear(state, f"{name}.{kind}_beta", code)[:, None]


def conditional_decoder(state: State, points: Tensor, code: Tensor) -> Tensor:
    net = linear(state, "decoder.fc_p", points)
    for i in range(5):
        name = f"decoder.block{i}"
        hidden = linear(state, f"{name}.fc_0", conditional_norm(state, f"{name}.bn_0", net, code).relu())
        net = net + linear(
            state, f"{name}.fc_1", conditional_norm(state, f"{name}.bn_1", hidden, code).relu()
        )
    return linear(state, "decoder.fc_out", conditional_norm(state, "decoder.bn", net, code).relu())[..., 0]


def simple_decoder(state: State, points: Tensor, shape: Tensor) -> Tensor:
    net = linear(state, "decoder.fc_p", points)
    if "decoder.fc_z.weight" in state:
        net = net + linear(state, "decoder.fc_z", shape)[:, None]
    for i in range(5):
        net = block(state, f"decoder.block{i}", net)
    return linear(state, "decoder.fc_out", net.relu())[..., 0]


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Inference mode, (B, F, H, W)."""
    mean, variance, weight, bias = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def resnet18(state: State, images: Tensor) -> Tensor:
    root = "encoder.features"
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    x = (images - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.conv2d(x, state[f"{root}.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(batch_norm(state, f"{root}.bn1", x).relu(), 3, stride=2, padding=1)
    for name in [f"{root}.layer{layer}.{i}" for layer in (1, 2, 3, 4) for i in (0, 1)]:
        stride = 2 if f"{name}.downsample.0.weight" in state else 1
        net = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        net = F.conv2d(batch_norm(state, f"{name}.bn1", net).relu(), state[f"{name}.conv2.weight"], padding=1)
        if stride == 2:
            x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
            x = batch_norm(state, f"{name}.downsample.1", x)
        x = (x + batch_norm(state, f"{name}.bn2", net)).relu()
    return linear(state, "encoder.fc", x.flatten(2).mean(2))


def conv3d(state: State, images: Tensor) -> Tensor:
    """(B, L, 3, H, W); strides (time, height, width) of the six layers as in the original."""
    strides = [(1, 2, 2), (2, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]
    x = images.transpose(1, 2)
    for i, stride in enumerate(strides):
        name = f"encoder_temporal.conv{i}"
        x = F.conv3d(x.relu() if i else x, state[f"{name}.weight"], state[f"{name}.bias"], stride, 1)
    return linear(state, "encoder_temporal.fc_out", x.flatten(2).mean(2).relu())
