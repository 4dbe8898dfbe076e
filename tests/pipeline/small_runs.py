"""Small collections and training runs for tests of what disturbs them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from convonet.training import TrainingConfig
from pipeline.training import TrainConfig
from preprocessing.batches.training_shapes import ShapeConfig
from preprocessing.dataset import DatasetLayout, ShapeSamples
from preprocessing.sources import Collection
from tests.pipeline.isolated_calls import Trouble
from tests.pipeline.test_train_presets import TINY


@dataclass(frozen=True)
class Steady(Trouble):
    """A unit that is well, and takes its time."""

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        time.sleep(0.3)
        return super().make(layout)


def steady_collection(folder: Path, shards: int = 8) -> Collection:
    """Three shapes in each shard; a second of work on one processor."""
    units = tuple(Steady(f"unit-{number}", "", str(folder / "log")) for number in range(3 * shards))
    return Collection(units, DatasetLayout(len(units), ("thing",), 2048, 2048, 2048, 3), {"source": "test"})


def ball_training(steps: int, workers: int = 1) -> TrainConfig:
    """A tiny network on `tests.preprocessing.ball_datasets`, with a checkpoint at every second step."""
    training = TrainingConfig(steps=steps, batch_size=4, learning_rate=1e-2, warmup_steps=2)
    samples = ShapeConfig(points=500, queries=512)
    return TrainConfig(
        TINY, training, workers=workers, checkpoint_every=2, validation_batches=1, samples=samples
    )
