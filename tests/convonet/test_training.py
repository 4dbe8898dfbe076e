"""The plain-torch step learns, and a resumed run is the run itself."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from convonet.training import (
    CropBatch,
    Fit,
    TrainingConfig,
    TrainingState,
    batch_logits,
    occupancy_iou,
    train_step,
)
from convonet.volume_network import VolumeNetwork, VolumeNetworkConfig

SMALL = VolumeNetworkConfig(
    feature_size=16, encoder_hidden=16, encoder_blocks=2, unet_levels=2, decoder_hidden=16, decoder_blocks=3
)


@dataclass(frozen=True)
class SphereBatch:
    """Points on a sphere of random radius; queries labelled by the radius."""

    points: np.ndarray
    point_batch: np.ndarray
    queries: np.ndarray
    query_batch: np.ndarray
    occupancy: np.ndarray
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
        inside = np.linalg.norm(queries - 8, axis=1) < radius[index]
        return SphereBatch(
            points.astype(np.float32),
            index,
            queries.astype(np.float32),
            index,
            inside.astype(np.float32),
            batch_size,
            (16, 16, 16),
        )


def train_until(step: int, state: TrainingState, config: TrainingConfig) -> TrainingState:
    while state.step < step:
        batch = CropBatch.from_arrays(Spheres().batch(state.step, config.batch_size), torch.device("cpu"))
        train_step(state.network, state, batch, config)
    return state


def fresh(config: TrainingConfig) -> TrainingState:
    torch.manual_seed(config.seed)
    return TrainingState.fresh(VolumeNetwork(SMALL), config)


def test_the_step_learns_spheres() -> None:
    config = TrainingConfig(steps=100, batch_size=2, learning_rate=5e-3, warmup_steps=10, averaging=0.9)
    state = fresh(config)
    Fit(Spheres(), config, torch.device("cpu")).run(state.network, state)
    assert state.step == 100
    network = VolumeNetwork(SMALL)
    network.load_state_dict(state.averaged)
    batch = CropBatch.from_arrays(Spheres().batch(10_000, 8), torch.device("cpu"))
    with torch.no_grad():
        assert occupancy_iou(batch_logits(network.eval(), batch), batch.occupancy) > 0.8


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
