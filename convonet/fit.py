"""Training on one machine with torch alone: `python -m convonet.fit DATA --out DIR`.

The batches come from a source that is imported at run time, so that this package needs neither Ray nor the program that
made the data. Run it again to continue from the last checkpoint.

Examples:
    python -m convonet.fit rooms.zarr --out runs/volume --steps 10000 --device cuda
    python -m convonet.fit chairs.zarr --preset onet_pointcloud --out runs/chairs --steps 300000
    python -m convonet.fit none --source preprocessing.analytic:analytic_source --out runs/volume --workers 8
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convonet.errors import WeightsError
from convonet.family import Sampling, SequenceSampling, ShapeSampling
from convonet.precision import choose_device
from convonet.prefetch import Prefetched
from convonet.registry import family_of, preset
from convonet.training import BatchSource, Fit, TrainingConfig, TrainingState
from convonet.weights import load_any_network, save_network
from foundation.errors import SettingError, TesseraError
from foundation.settings import check_at_least

SOURCES = {
    type(None): "preprocessing.batches.training_crops:training_source",
    ShapeSampling: "preprocessing.batches.training_shapes:training_source",
    SequenceSampling: "preprocessing.batches.training_sequences:training_source",
}
"""What draws the samples that a family asks for: those of scenes are crops."""


def load_source(name: str, data: Path, seed: int, sampling: Sampling | None = None) -> BatchSource:
    """Import `module:function` and call it with the data's path, the seed and, by name, the fields of the sampling.

    Raises:
        SettingError: if the name is not of that form or does not exist.
    """
    module_name, _, attribute = name.partition(":")
    try:
        factory: Callable[..., BatchSource] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"--source {name}: must be module:function ({error})") from error
    return factory(data, seed, **(vars(sampling) if sampling else {}))


@dataclass(frozen=True)
class FitConfig:
    """A training run on one machine.

    Attributes:
        data: what the source reads.
        out: folder for state.pt, model.safetensors and metrics.jsonl.
        training: schedule, learning rate, seed.
        preset: name of the network's configuration.
        source: `module:function` that makes the batches; by default from a Zarr store, what the preset asks for.
        initial: weights to start from, a file or a packaged name; None for random ones.
        checkpoint_every: steps between checkpoints.
        workers: processes that make batches ahead; 0 makes them in this process.
    """

    data: Path
    out: Path
    training: TrainingConfig = field(default_factory=TrainingConfig)
    preset: str = "volume"
    source: str | None = None
    initial: str | None = None
    checkpoint_every: int = 500
    workers: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, checkpoint_every=self.checkpoint_every)
        check_at_least(0, workers=self.workers)


def initial_network(config: FitConfig, make_source: Callable[[], Any]) -> nn.Module:
    """The preset's network: random, or with given weights of its family.

    Raises:
        WeightsError: if the weights are of another family.
    """
    wanted = preset(config.preset)
    family = family_of(wanted)
    if config.initial is None:
        if family.input(wanted) == "shape":
            wanted = replace(wanted, shape_count=len(make_source().shapes))
        return wanted.build()
    trained = load_any_network(config.initial)
    if not isinstance(trained.config, family.config):
        raise WeightsError(f"{config.initial}: holds no network of kind {wanted.kind}, as {config.preset} is")
    return family.trainable(trained)


def fit(config: FitConfig, device: torch.device) -> Path:
    """Train a network and return its weights file."""
    config.out.mkdir(parents=True, exist_ok=True)
    training = config.training
    wanted = preset(config.preset)
    family = family_of(wanted)
    sampling = family.sampling(wanted, config.preset)
    name = config.source or SOURCES[type(sampling)]
    make_source = partial(load_source, name, config.data, training.seed, sampling)
    torch.manual_seed(training.seed)
    network = initial_network(config, make_source).to(device)
    objective = family.objective(network.config, family.loss_terms.get(config.preset))
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
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items())
            print(f"step {current.step}: {figures}", flush=True)

    with ExitStack() as stack:
        if config.workers:
            ahead = Prefetched(make_source, config.workers, state.step, training.steps, training.batch_size)
            source: BatchSource = stack.enter_context(closing(ahead))
        else:
            source = make_source()
        Fit(source, training, device, on_step=on_step, objective=objective).run(state)
    return weights


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m convonet.fit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", type=Path, help="data that the source reads, such as a Zarr store")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--preset", default="volume", help="name of the network's configuration")
    parser.add_argument(
        "--steps", type=int, default=TrainingConfig.steps, help="optimizer steps of the whole schedule"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help="number of crops, shapes or sequences in a step; the paper's by default",
    )
    parser.add_argument(
        "--learning-rate", type=float, help="peak learning rate of the schedule; the paper's by default"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the initial weights and the batches"
    )
    parser.add_argument(
        "--checkpoint-every", type=int, default=500, help="optimizer steps between checkpoints"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device that the network trains on"
    )
    parser.add_argument(
        "--source", help="module:function that makes the batches; by default one that reads a Zarr store"
    )
    parser.add_argument("--initial", help="weights to start from: a file or a packaged name")
    parser.add_argument(
        "--workers", type=int, default=0, help="number of processes that prepare batches in advance"
    )
    given = parser.parse_args(args)
    network = preset(given.preset)
    schedule = family_of(network).schedule(network)
    asked = {
        name: value for name, value in vars(given).items() if hasattr(schedule, name) and value is not None
    }
    others = {name: value for name, value in vars(given).items() if name in FitConfig.__dataclass_fields__}
    config = FitConfig(**others, training=replace(schedule, **asked))
    print(fit(config, choose_device(given.device)))


if __name__ == "__main__":
    try:
        main()
    except (TesseraError, OSError) as error:
        sys.exit(f"convonet.fit: {error}")
