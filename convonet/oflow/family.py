"""The record of Occupancy Flow (Niemeyer et al. 2019)."""

from __future__ import annotations

from dataclasses import replace

from convonet.family import Family, InputKind, SequenceSampling
from convonet.oflow.losses import FlowLossConfig
from convonet.oflow.network import OccupancyFlowConfig
from convonet.oflow.objective import FlowObjective
from convonet.oflow.originals import from_original
from convonet.oflow.presets import FLOWS, LOSSES, OCCUPANCY_THRESHOLD
from convonet.training import TrainingConfig


def _input(config: OccupancyFlowConfig) -> InputKind:
    if config.temporal_encoder == "pointnet_pair":
        return "pair"
    if config.spatial_encoder == "resnet18" or config.temporal_encoder == "conv3d":
        return "images"
    return "tracks" if config.spatial_encoder or config.temporal_encoder else "nothing"


def _sampling(config: OccupancyFlowConfig, preset: str) -> SequenceSampling:
    tracked = 100 if preset in LOSSES and LOSSES[preset].correspondence else 0
    usual = SequenceSampling(config.frames, trajectories=tracked)
    match _input(config):
        case "pair":
            follows = preset == "oflow_interpolation"
            return replace(
                usual, inputs="pair", points=10_000, noise=0.0, has_correspondence=follows, queries=0
            )
        case "images":
            return replace(usual, inputs="images")
        case "nothing" if config.latent_size:  # which training infers from tracks
            return replace(usual, points=4_000, noise=0.0)
        case "nothing":  # one sequence, as there is no encoder that could know two apart
            return replace(usual, inputs="nothing", sequences=1)
    return usual


def _objective(config: OccupancyFlowConfig, terms: FlowLossConfig | None) -> FlowObjective:
    has_decoder = config.decoder is not None
    return FlowObjective(terms or FlowLossConfig(reconstruction=has_decoder, correspondence=not has_decoder))


FAMILY = Family(
    OccupancyFlowConfig,
    FLOWS,
    makes="flows",
    input=_input,
    sampling=_sampling,
    schedule=lambda config: TrainingConfig(
        batch_size=8 if config.temporal_encoder == "pointnet_pair" else 16, learning_rate=1e-4
    ),
    objective=_objective,
    loss_terms=LOSSES,
    threshold=lambda config: OCCUPANCY_THRESHOLD,
    from_original=from_original,
    with_direct_gradients=lambda config: replace(config, solver=replace(config.solver, adjoint=False)),
)
