"""Training runs of the published configurations: what each preset is fed, and how fast it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from convonet.conv_onet import ConvOnetConfig
from convonet.oflow import LOSSES, OccupancyFlowConfig, OccupancyNetwork4DConfig
from convonet.onet import OccupancyNetworkConfig
from convonet.registry import PRESETS, SCAN_KINDS, kind_of
from convonet.training import TrainingConfig
from pipeline.training import TrainConfig
from preprocessing.training_sequences import SequenceConfig
from preprocessing.training_shapes import InputKind, ShapeConfig, ShapeSource

LEARNING_RATE = 1e-4  # of every published configuration
ONET_INPUTS: dict[str, InputKind] = {
    "voxel_simple": "voxels",
    "resnet18": "views",
    "index": "index",
    "none": "nothing",
}


def preset_training(
    name: str, batch_size: int | None = None, learning_rate: float | None = None
) -> TrainingConfig:
    """The schedule of a preset: batch size and learning rate of its publication unless they are given.

    Raises:
        ValueError: if there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    usual, config = TrainingConfig(), PRESETS[name]
    if kind_of(config) in SCAN_KINDS:
        size, rate = usual.batch_size, usual.learning_rate
    else:
        size, rate = _batch_size(config), LEARNING_RATE
    return replace(
        usual,
        batch_size=size if batch_size is None else batch_size,
        learning_rate=rate if learning_rate is None else learning_rate,
    )


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
        ValueError: if there is no such preset, or direct gradients are asked for where nothing is integrated.
        DatasetError: if `data` is not a dataset of shapes, and the network embeds each of them.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    network = PRESETS[name]
    if direct_gradients:
        if not isinstance(network, OccupancyFlowConfig):
            raise ValueError(
                f"--direct-gradients is for Occupancy Flow (oflow_...); {name} integrates nothing"
            )
        network = replace(network, solver=replace(network.solver, adjoint=False))
    match network:
        case ConvOnetConfig():
            return TrainConfig(network, training, samples=_conv_onet_samples(name, network))
        case OccupancyNetworkConfig():
            shapes = ShapeConfig(ONET_INPUTS.get(network.encoder, "points"), points=300)
            if network.encoder == "index":
                source = ShapeSource(data, "train", shapes, training.seed)
                network = replace(network, shape_count=len(source.shapes))
            return TrainConfig(network, training, samples=shapes)
        case OccupancyFlowConfig() | OccupancyNetwork4DConfig():
            samples = _sequence_samples(name, network)
            return TrainConfig(network, training, samples=samples, flow_terms=LOSSES.get(name))
        case _:
            return TrainConfig(network, training)


def _batch_size(config: object) -> int:
    """Of the publication's configuration files."""
    match config:
        case ConvOnetConfig(family="crops"):
            return 2
        case ConvOnetConfig():
            return 32
        case OccupancyNetworkConfig():
            return 64
        case OccupancyFlowConfig(temporal_encoder="pointnet_pair"):
            return 8
        case _:
            return 16


def _conv_onet_samples(name: str, network: ConvOnetConfig) -> ShapeConfig:
    if network.family == "voxels":
        return ShapeConfig("voxels")
    if network.family == "crops":
        return ShapeConfig(
            "crops",
            points=10_000,
            queries=1024,
            near_share=0.5,
            crop_side=network.crop_resolution * network.unit_size,
            crop_query_side=network.query_voxels * network.unit_size,
        )
    points = 10_000 if name.startswith("room") else 3_000
    return ShapeConfig("partial" if name.endswith("partial") else "points", points)


def _sequence_samples(name: str, network: OccupancyFlowConfig | OccupancyNetwork4DConfig) -> SequenceConfig:
    is_flow = isinstance(network, OccupancyFlowConfig)
    usual = SequenceConfig(frames=network.frames)
    if is_flow and LOSSES[name].correspondence:
        usual = replace(usual, trajectories=100)
    if network.temporal_encoder == "conv3d":
        return replace(usual, inputs="views")
    if name in ("oflow_interpolation", "oflow_shape_matching"):
        follows = name == "oflow_interpolation"
        return replace(usual, points=10_000, noise=0.0, ends_only=True, has_correspondence=follows, queries=0)
    if name == "oflow_generative":
        return replace(usual, points=4_000, noise=0.0)
    if name == "oflow_repr_power":  # fits one sequence, as it has no encoder to tell two apart
        return replace(usual, inputs="nothing", sequences=1)
    return usual
