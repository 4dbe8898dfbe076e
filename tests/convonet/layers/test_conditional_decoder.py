"""Conditional and plain batch normalization against a recomputation in numpy, in both modes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from convonet.layers.conditional_batch_norm import ConditionalBatchNorm, PointBatchNorm
from convonet.layers.conditional_decoder import NormResnetBlock


def randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.5, generator=generator)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0, generator=generator)


def numbers(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy().copy() for name, value in module.state_dict().items()}


def conditional(
    s: dict[str, np.ndarray], name: str, x: np.ndarray, c: np.ndarray, training: bool
) -> np.ndarray:
    """gamma(c) (x - mean) / sqrt(var + eps) + beta(c), the statistics over shapes and points."""
    gamma = c @ s[f"{name}scale.weight"].T + s[f"{name}scale.bias"]
    beta = c @ s[f"{name}shift.weight"].T + s[f"{name}shift.bias"]
    mean, variance = s[f"{name}batch_norm.running_mean"], s[f"{name}batch_norm.running_var"]
    if training:
        mean, variance = x.mean(axis=(0, 1)), x.var(axis=(0, 1))
    return gamma[:, None] * (x - mean) / np.sqrt(variance + 1e-5) + beta[:, None]


def example(seed: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 17, width, generator=generator) * 2 + 1, torch.randn(3, 4, generator=generator)


@pytest.mark.parametrize("training", [True, False])
def test_conditional_norm_agrees_with_its_formula(training: bool) -> None:
    norm = ConditionalBatchNorm(feature_size=4, hidden_size=6).train(training)
    randomise(norm, 1)
    x, c = example(2, 6)
    expected = conditional(numbers(norm), "", x.double().numpy(), c.double().numpy(), training)
    np.testing.assert_allclose(norm(x, c).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_training_moves_the_running_statistics_a_tenth_of_the_way_and_evaluation_leaves_them() -> None:
    norm = ConditionalBatchNorm(4, 6)
    randomise(norm, 3)
    before = numbers(norm)
    x, c = example(4, 6)
    norm.eval()(x, c)
    np.testing.assert_array_equal(numbers(norm)["batch_norm.running_mean"], before["batch_norm.running_mean"])
    norm.train()(x, c)
    flat = x.double().numpy().reshape(-1, 6)
    after = numbers(norm)
    for key, value in (("running_mean", flat.mean(0)), ("running_var", flat.var(0, ddof=1))):
        expected = 0.9 * before[f"batch_norm.{key}"] + 0.1 * value
        np.testing.assert_allclose(after[f"batch_norm.{key}"], expected, rtol=1e-5)


def test_a_fresh_conditional_norm_ignores_the_shape() -> None:
    norm = ConditionalBatchNorm(4, 6).eval()
    x, c = example(5, 6)
    torch.testing.assert_close(norm(x, c), norm(x, 100 * c + 3))
    torch.testing.assert_close(norm(x, c), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_plain_norm_agrees_with_its_formula(training: bool) -> None:
    norm = PointBatchNorm(6).train(training)
    randomise(norm, 6)
    s, x = numbers(norm), example(7, 6)[0]
    array = x.double().numpy()
    mean, variance = s["running_mean"], s["running_var"]
    if training:
        mean, variance = array.mean(axis=(0, 1)), array.var(axis=(0, 1))
    expected = s["weight"] * (array - mean) / np.sqrt(variance + 1e-5) + s["bias"]
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size_out", [6, 9])
def test_conditional_block_agrees_with_a_straight_line(training: bool, size_out: int) -> None:
    block = NormResnetBlock(partial(ConditionalBatchNorm, 4), size_in=6, size_hidden=5, size_out=size_out)
    block.train(training)
    randomise(block, 8)
    s, (x, c) = numbers(block), example(9, 6)
    xs, cs = x.double().numpy(), c.double().numpy()
    hidden = np.maximum(conditional(s, "norm_0.", xs, cs, training), 0) @ s["fc_0.weight"].T + s["fc_0.bias"]
    residual = np.maximum(conditional(s, "norm_1.", hidden, cs, training), 0) @ s["fc_1.weight"].T
    shortcut = xs @ s["shortcut.weight"].T if size_out != 6 else xs
    expected = shortcut + residual + s["fc_1.bias"]
    np.testing.assert_allclose(block(x, c).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_evaluation_treats_every_query_alone_and_training_does_not() -> None:
    block = NormResnetBlock(PointBatchNorm, 6, 6, 6)
    randomise(block, 10)
    x = example(11, 6)[0]
    block.eval()
    torch.testing.assert_close(block(x)[:, :5], block(x[:, :5]))
    block.train()
    assert (block(x)[:, :5] - block(x[:, :5])).abs().max() > 0.01
