"""Training on one machine with torch alone: `python -m convonet.fit DATA --out DIR`.

The batches come from a source named on the command line and imported at run time, so that this package
needs neither Ray nor the program that made the data. Run it again to continue from the last checkpoint.

Examples:
    python -m convonet.fit rooms.zarr --out runs/volume --steps 10000 --device cuda
    python -m convonet.fit none --source preprocessing.analytic:analytic_source --out runs/volume --workers 8
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convonet.errors import WeightsError
from convonet.precision import choose_device
from convonet.prefetch import Prefetched
from convonet.training import LOGITS_PER_VOXEL, BatchSource, Fit, TrainingConfig, TrainingState
from convonet.volume import VolumeNetwork, VolumeNetworkConfig
from convonet.weights import load_network, save_network

DEFAULT_SOURCE = "preprocessing.training_crops:training_source"


def load_source(name: str, data: Path, seed: int) -> BatchSource:
    """Import `module:function` and call it with the data's path and the seed.

    Raises:
        ValueError: if the name is not of that form or does not exist.
    """
    module_name, _, attribute = name.partition(":")
    try:
        factory: Callable[[Path, int], BatchSource] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--source {name}: must be module:function ({error})") from error
    return factory(data, seed)


@dataclass(frozen=True)
class FitConfig:
    """A training run on one machine.

    Attributes:
        data: what the source reads.
        out: folder for state.pt, model.safetensors and metrics.jsonl.
        training: schedule, learning rate, seed.
        source: `module:function` that makes the batches.
        initial: weights to start from, a file or a packaged name; None for random ones.
        checkpoint_every: steps between checkpoints.
        workers: processes that make batches ahead; 0 makes them in this process.
    """

    data: Path
    out: Path
    training: TrainingConfig = field(default_factory=TrainingConfig)
    source: str = DEFAULT_SOURCE
    initial: str | None = None
    checkpoint_every: int = 500
    workers: int = 0


def initial_network(initial: str | None) -> VolumeNetwork:
    """A volume network that takes hints: random, or with given weights, which may know of none yet."""
    if initial is None:
        return VolumeNetwork(VolumeNetworkConfig(has_hints=True, logits_per_voxel=LOGITS_PER_VOXEL))
    trained = load_network(initial)
    if not isinstance(trained, VolumeNetwork):
        raise WeightsError(f"{initial}: holds no volume network, which is what this program trains")
    config = replace(trained.config, has_hints=True, logits_per_voxel=LOGITS_PER_VOXEL)
    network = VolumeNetwork(config)
    network.load_state_dict(network.state_dict() | trained.state_dict())
    return network


def fit(config: FitConfig, device: torch.device) -> Path:
    """Train a volume network and return its weights file."""
    config.out.mkdir(parents=True, exist_ok=True)
    training = config.training
    torch.manual_seed(training.seed)
    network = initial_network(config.initial).to(device)
    state = TrainingState.fresh(network, training)
    checkpoint, weights = config.out / "state.pt", config.out / "model.safetensors"
    if checkpoint.exists():
        state.load(checkpoint)

    def on_step(current: TrainingState, metrics: dict[str, float]) -> None:
        is_last = current.step == training.steps
        if is_last or current.step % config.checkpoint_every == 0:
            current.save(checkpoint)
            save_network(weights, network, current.averaged, {"steps": str(current.step)})
        if is_last or current.step % 20 == 0:
            line: dict[str, Any] = {"step": current.step, **metrics}
            with (config.out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(f"step {current.step}: loss {metrics['loss']:.4f}, IoU {metrics['iou']:.3f}", flush=True)

    make_source = partial(load_source, config.source, config.data, training.seed)
    if not config.workers:
        Fit(make_source(), training, device, on_step=on_step).run(network, state)
        return weights
    ahead = Prefetched(make_source, config.workers, state.step, training.steps, training.batch_size)
    try:
        Fit(ahead, training, device, on_step=on_step).run(network, state)
    finally:
        ahead.close()
    return weights


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m convonet.fit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", type=Path, help="what the source reads, such as a Zarr store")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=TrainingConfig.batch_size, help="crops in a step")
    parser.add_argument("--learning-rate", type=float, default=TrainingConfig.learning_rate, help="its peak")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the batches")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--source", default=DEFAULT_SOURCE, help="module:function that makes the batches")
    parser.add_argument("--initial", help="weights to start from: a file or a packaged name")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches ahead")
    given = parser.parse_args(args)
    training = TrainingConfig(
        steps=given.steps, batch_size=given.batch_size, learning_rate=given.learning_rate, seed=given.seed
    )
    config = FitConfig(
        data=given.data,
        out=given.out,
        training=training,
        source=given.source,
        initial=given.initial,
        checkpoint_every=given.checkpoint_every,
        workers=given.workers,
    )
    print(fit(config, choose_device(given.device)))


if __name__ == "__main__":
    main()
