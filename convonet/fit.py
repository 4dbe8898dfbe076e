"""Training on one machine with torch alone: `python -m convonet.fit DATA --out DIR`.

The batches come from a source named on the command line and imported at run time, so that this package
needs neither Ray nor the program that made the data. Run it again to continue from the last checkpoint.

Example: python -m convonet.fit rooms.zarr --out runs/volume --steps 10000 --device cuda
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from convonet.precision import choose_device
from convonet.training import BatchSource, Fit, TrainingConfig, TrainingState
from convonet.volume_network import VolumeNetwork, VolumeNetworkConfig
from convonet.weights import save_network

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


def fit(
    data: Path, out: Path, config: TrainingConfig, device: torch.device, source: str, checkpoint_every: int
) -> Path:
    """Train a volume network and return its weights file.

    Args:
        data: what the source reads.
        out: folder for state.pt, model.safetensors and metrics.jsonl.
        config: schedule, learning rate, seed.
        device: where to train.
        source: `module:function` that makes the batches.
        checkpoint_every: steps between checkpoints.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    network = VolumeNetwork(VolumeNetworkConfig()).to(device)
    state = TrainingState.fresh(network, config)
    checkpoint, weights = out / "state.pt", out / "model.safetensors"
    if checkpoint.exists():
        state.load(checkpoint)

    def on_step(current: TrainingState, metrics: dict[str, float]) -> None:
        is_last = current.step == config.steps
        if is_last or current.step % checkpoint_every == 0:
            current.save(checkpoint)
            save_network(weights, network, current.averaged, {"steps": str(current.step)})
        if is_last or current.step % 20 == 0:
            line: dict[str, Any] = {"step": current.step, **metrics}
            with (out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(f"step {current.step}: loss {metrics['loss']:.4f}, IoU {metrics['iou']:.3f}", flush=True)

    Fit(load_source(source, data, config.seed), config, device, on_step=on_step).run(network, state)
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
    given = parser.parse_args(args)
    config = TrainingConfig(
        steps=given.steps, batch_size=given.batch_size, learning_rate=given.learning_rate, seed=given.seed
    )
    device = choose_device(given.device)
    print(fit(given.data, given.out, config, device, given.source, given.checkpoint_every))


if __name__ == "__main__":
    main()
