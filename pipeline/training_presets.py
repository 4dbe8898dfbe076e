"""Training runs of the published configurations: what each preset is fed, and how fast it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from convonet.registry import family_of, preset
from convonet.training import TrainingConfig
from foundation.errors import SettingError
from pipeline.training import SAMPLES, TrainConfig
from preprocessing.batches.training_shapes import ShapeConfig, ShapeSource


def preset_training(
    name: str, batch_size: int | None = None, learning_rate: float | None = None
) -> TrainingConfig:
    """The schedule of a preset: batch size and learning rate of its publication unless they are given.

    Raises:
        SettingError: if there is no such preset.
    """
    config = preset(name)
    asked: dict[str, Any] = {"batch_size": batch_size, "learning_rate": learning_rate}
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(family_of(config).schedule(config), **given)


def preset_config(
    name: str, data: Path, training: TrainingConfig, direct_gradients: bool = False
) -> TrainConfig:
    """The training run of a preset on a dataset.

    Args:
        name: of a preset in `convonet.registry`.
        data: the Zarr store; a network with an embedding of each training shape gets as many as it holds.
        training: the schedule.
        direct_gradients: of Occupancy Flow, through the solver's own steps instead of by the adjoint equation: many
            times as fast on a processor, in memory that grows with the steps.

    Raises:
        SettingError: if there is no such preset, or direct gradients are asked for where nothing is integrated.
        DatasetError: if `data` is not a dataset of shapes, and the network embeds each of them.
    """
    network = preset(name)
    family = family_of(network)
    if direct_gradients:
        if family.with_direct_gradients is None:
            raise SettingError(
                f"--direct-gradients is for Occupancy Flow (oflow_...); {name} integrates nothing"
            )
        network = family.with_direct_gradients(network)
    sampling = family.sampling(network, name)
    samples = None if sampling is None else SAMPLES[type(sampling)](**vars(sampling))
    if isinstance(samples, ShapeConfig) and samples.inputs == "shape":
        shapes = ShapeSource(data, "train", samples, training.seed).shapes
        network = replace(network, shape_count=len(shapes))
    return TrainConfig(network, training, samples=samples, loss_terms=family.loss_terms.get(name))
