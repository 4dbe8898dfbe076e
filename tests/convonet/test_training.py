"""The plain-torch step learns, and a resumed run is the run itself."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from convonet.training import (
    Criterion,
    CropBatch,
    CropObjective,
    Fit,
    TrainingConfig,
    TrainingState,
    batch_logits,
    occupancy_iou,
    train_step,
)
from convonet.volume import VolumeNetwork, VolumeNetworkConfig

SMALL = VolumeNetworkConfig(
    feature_size=16, encoder_hidden=16, encoder_blocks=2, unet_levels=2, decoder_hidden=16, decoder_blocks=3
)


@dataclass(frozen=True)
class SphereBatch:
    """Points on a sphere of random radius; queries labeled by their distance to it."""

    points: np.ndarray
    point_batch: np.ndarray
    directions: np.ndarray
    sheets: np.ndarray
    queries: np.ndarray
    query_batch: np.ndarray
    distances: np.ndarray
    batch_size: int
    grid_shape: tuple[int, int, int]


class Spheres:
    """A source of sphere batches, each decided by its step."""

    def batch(self, step: int, batch_size: int, rank: int = 0) -> SphereBatch:
        rng = np.random.default_rng([step, rank])
        radius = rng.uniform(3, 6, batch_size)
        index = np.repeat(np.arange(batch_size), 400)
        directions = rng.standard_normal((len(index), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = 8 + directions * radius[index, None]
        queries = rng.uniform(0, 16, (len(index), 3))
        distances = np.linalg.norm(queries - 8, axis=1) - radius[index]
        return SphereBatch(
            points.astype(np.float32),
            index,
            np.zeros_like(points, np.float32),
            np.full(len(points), 3.0, np.float32),
            queries.astype(np.float32),
            index,
            distances.astype(np.float32),
            batch_size,
            (16, 16, 16),
        )


def train_until(step: int, state: TrainingState, config: TrainingConfig) -> TrainingState:
    while state.step < step:
        batch = CropBatch.from_arrays(Spheres().batch(state.step, config.batch_size), torch.device("cpu"))
        train_step(Criterion(state.network), state, batch, config)
    return state


def fresh(config: TrainingConfig) -> TrainingState:
    torch.manual_seed(config.seed)
    return TrainingState.fresh(VolumeNetwork(SMALL), config)


def test_the_step_learns_spheres() -> None:
    config = TrainingConfig(steps=300, batch_size=2, learning_rate=5e-3, warmup_steps=10, averaging=0.9)
    state = fresh(config)
    Fit(Spheres(), config, torch.device("cpu")).run(state)
    assert state.step == 300
    network = VolumeNetwork(SMALL)
    network.load_state_dict(state.averaged)
    batch = CropBatch.from_arrays(Spheres().batch(10_000, 8), torch.device("cpu"))
    with torch.no_grad():
        assert occupancy_iou(batch_logits(network.eval(), batch), batch.occupancy) > 0.8


def test_the_loss_is_the_error_of_the_truncated_distance_and_a_share_of_cross_entropy() -> None:
    """Against the formula written out, for a network that answers with given logits."""
    distances = np.array([-3.0, -0.5, 0.25, 1.0, 9.0], np.float32)
    logits = torch.tensor([20.0, 2.0, -3.0, 4.0, -1.0], requires_grad=True)
    whole = Spheres().batch(0, 1)
    batch = CropBatch.from_arrays(replace(whole, distances=distances), torch.device("cpu"))

    class Given(torch.nn.Module):
        def forward(self, *arguments: object) -> torch.Tensor:
            return logits

    loss, figures = CropObjective(use_bf16=False).loss(Given(), batch)
    predicted = np.clip(-logits.detach().numpy() / 4, -1.5, 1.5)
    error = np.abs(predicted - np.clip(distances, -1.5, 1.5)).mean()
    signed = np.where(distances < 0, 1, -1) * logits.detach().numpy()
    entropy = np.log1p(np.exp(-signed)).mean()
    assert loss.item() == pytest.approx(error + 0.25 * entropy, rel=1e-5)
    assert figures["distance_error"] == pytest.approx(error, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    # Towards the truth: at -0.5 the logit 2 is right but for the entropy; at 1.0 the logit 4 must fall.
    assert logits.grad[3] > 0
    assert logits.grad[2] < 0 or abs(logits.grad[2]) < 0.06


def test_hints_that_start_at_zero_leave_the_logits_as_they_were() -> None:
    torch.manual_seed(0)
    plain = VolumeNetwork(SMALL).eval()
    hinted = VolumeNetwork(replace(SMALL, has_hints=True)).eval()
    hinted.load_state_dict(hinted.state_dict() | plain.state_dict())
    batch = CropBatch.from_arrays(Spheres().batch(3, 2), torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(batch_logits(plain, batch, False), batch_logits(hinted, batch, False))
        torch.nn.init.normal_(hinted.encoder.fc_hints.weight)
        known = replace(batch, directions=torch.ones_like(batch.directions))
        assert not torch.equal(batch_logits(hinted, known, False), batch_logits(hinted, batch, False))


def test_resuming_from_a_checkpoint_gives_the_uninterrupted_weights(tmp_path: Path) -> None:
    config = TrainingConfig(steps=6, batch_size=2, warmup_steps=2)
    whole = train_until(6, fresh(config), config)
    train_until(3, fresh(config), config).save(tmp_path / "state.pt")
    resumed = TrainingState.fresh(VolumeNetwork(SMALL), config)
    resumed.load(tmp_path / "state.pt")
    assert resumed.step == 3
    train_until(6, resumed, config)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.averaged[name], resumed.averaged[name]), name
