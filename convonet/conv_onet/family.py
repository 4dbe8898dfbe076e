"""The record of the networks of Peng et al. 2020."""

from __future__ import annotations

from typing import Any

from torch import nn

from convonet.conv_onet.network import ConvOnet, ConvOnetConfig
from convonet.conv_onet.objective import BoxObjective
from convonet.conv_onet.originals import from_original
from convonet.conv_onet.presets import OCCUPANCY_THRESHOLD, PRESETS
from convonet.conv_onet.scene_crops import SceneCrops
from convonet.family import Family, InputKind, ShapeSampling
from convonet.shape_training import ShapeObjective
from convonet.training import TrainingConfig


def _input(config: ConvOnetConfig) -> InputKind:
    return "points" if config.family == "pointconv" else config.family


def _sampling(config: ConvOnetConfig, preset: str) -> ShapeSampling:
    if config.family == "voxels":
        return ShapeSampling("voxels")
    if config.family == "crops":
        return ShapeSampling(
            "crops",
            points=10_000,
            queries=1024,
            near_share=0.5,
            crop_side=config.crop_resolution * config.unit_size,
            crop_query_side=config.query_voxels * config.unit_size,
        )
    is_room = preset.startswith("room") if preset else config.plane_resolution > 64
    return ShapeSampling("partial" if preset.endswith("partial") else "points", 10_000 if is_room else 3_000)


def _objective(config: ConvOnetConfig, terms: Any) -> ShapeObjective:
    if config.family == "crops":
        return BoxObjective(OCCUPANCY_THRESHOLD, True, config.crop_resolution, config.projections)
    return ShapeObjective(OCCUPANCY_THRESHOLD, use_bf16=True)


def _crop_network(network: nn.Module) -> SceneCrops | None:
    assert isinstance(network, ConvOnet)
    return SceneCrops(network) if network.config.family == "crops" else None


FAMILY = Family(
    ConvOnetConfig,
    PRESETS,
    makes="shapes",
    input=_input,
    sampling=_sampling,
    schedule=lambda config: TrainingConfig(
        batch_size=2 if config.family == "crops" else 32, learning_rate=1e-4
    ),
    objective=_objective,
    threshold=lambda config: OCCUPANCY_THRESHOLD,
    pairs_with_points=lambda config: config.family == "pointconv",
    crop_network=_crop_network,
    from_original=from_original,
)
