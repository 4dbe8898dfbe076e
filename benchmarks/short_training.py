"""Short trainings of crop networks on analytic scenes, and how good they are on crops held out."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from convonet.crop_network import CropNetwork
from convonet.training import (
    Criterion,
    CropBatch,
    CropObjective,
    TrainingConfig,
    TrainingState,
    batch_logits,
    train_step,
)
from preprocessing.analytic import AnalyticConfig, AnalyticCrops

HELD_OUT_SEED = 1_000_000
CPU = torch.device("cpu")


def train(
    build: Callable[[], nn.Module],
    crops: AnalyticConfig,
    objective: CropObjective,
    config: TrainingConfig,
    held_out: list[CropBatch],
) -> tuple[CropNetwork, dict[str, float]]:
    """A network with the running average of its weights, and its figures.

    Returns:
        The figures are its number of parameters, the median seconds of a step without its batch, and `quality`.
    """
    torch.manual_seed(config.seed)
    network, source = build(), AnalyticCrops(crops, config.seed)
    assert isinstance(network, CropNetwork)
    state = TrainingState.fresh(network, config)
    seconds = []
    for step in range(config.steps):
        batch = objective.load(source.batch(step, config.batch_size), CPU)
        started = time.perf_counter()
        train_step(Criterion(network, objective), state, batch, config)
        seconds.append(time.perf_counter() - started)
    network.load_state_dict(state.averaged)
    network.eval().requires_grad_(False)
    return network, {
        "parameters": sum(value.numel() for value in network.parameters()),
        "training_step_s": float(np.median(seconds)),
        **quality(network, held_out),
    }


def held_out_batches(crops: AnalyticConfig, count: int, batch_size: int) -> list[CropBatch]:
    """Batches of scenes that no training draws."""
    source = AnalyticCrops(crops, HELD_OUT_SEED)
    return [CropObjective().load(source.batch(number, batch_size), CPU) for number in range(count)]


def quality(network: CropNetwork, batches: list[CropBatch]) -> dict[str, float]:
    """IoU, and mean error of the distance in voxels, over the queries of held-out crops."""
    objective = CropObjective()
    with torch.no_grad():
        logits = torch.cat([batch_logits(network, batch) for batch in batches])
    distances = torch.cat([batch.distances for batch in batches])
    inside, predicted = distances < 0, logits > 0

    def clipped(values: Tensor) -> Tensor:
        return values.clamp(-objective.truncation, objective.truncation)

    iou = (inside & predicted).sum() / (inside | predicted).sum().clamp_min(1)
    error = clipped(-logits / objective.logits_per_voxel) - clipped(distances)
    return {"iou": float(iou), "distance_error_voxels": float(error.abs().mean())}
