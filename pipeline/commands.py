"""What each command does: call the stage, print its summary. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainOptions:
    """The command line's share of a training configuration."""

    steps: int
    batch_size: int
    learning_rate: float
    workers: int
    checkpoint_every: int
    max_failures: int
    initial_model: str | None
    seed: int


def preprocess_rooms(out: Path, rooms: int, building_windows: int, seed: int, address: str) -> None:
    """`tessera preprocess rooms`."""
    from pipeline.preparation import RoomsConfig, preprocess

    summary = preprocess(out, RoomsConfig(rooms, building_windows, seed), address)
    print(
        f"{out}: {summary.shapes} shapes ({summary.shards_made} shards made, {summary.shards_kept} kept), "
        f"{len(summary.rejected)} rejected"
    )
    for entry in summary.rejected:
        print(f"  rejected {entry.name}: {entry.reason}")


def train(data: Path, out: Path, options: TrainOptions, device: str, address: str) -> None:
    """`tessera train`."""
    from convonet.training import TrainingConfig
    from pipeline.training import TrainConfig
    from pipeline.training import train as run

    training = TrainingConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    config = TrainConfig(
        training=training,
        workers=options.workers,
        checkpoint_every=options.checkpoint_every,
        max_failures=options.max_failures,
        initial_model=options.initial_model,
    )
    summary = run(data, out, config, device, address)
    print(
        f"{summary.model}: {summary.steps} steps, validation IoU {summary.validation_iou:.3f}, "
        f"{summary.seconds:.0f} s"
    )
