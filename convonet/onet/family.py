"""The record of the networks of Mescheder et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from convonet.family import Family, ShapeSampling
from convonet.onet.network import EncoderKind, OccupancyNetworkConfig
from convonet.onet.objective import BoundObjective
from convonet.onet.originals import from_original
from convonet.onet.presets import PRESETS
from convonet.shape_training import ShapeObjective
from convonet.training import TrainingConfig

INPUTS: dict[EncoderKind, Literal["points", "voxels", "image", "shape", "nothing"]] = {
    "pointnet_resnet": "points",
    "pointnet_simple": "points",
    "voxel_simple": "voxels",
    "resnet18": "image",
    "index": "shape",
    "none": "nothing",
}


def _objective(config: OccupancyNetworkConfig, terms: Any) -> ShapeObjective:
    return (BoundObjective if config.latent_size else ShapeObjective)(config.threshold)


def _fitted(config: OccupancyNetworkConfig, state: Mapping[str, Tensor]) -> OccupancyNetworkConfig:
    """With as many shapes as the checkpoint embeds."""
    if config.encoder != "index" or "encoder.weight" not in state:
        return config
    return replace(config, shape_count=len(state["encoder.weight"]))


FAMILY = Family(
    OccupancyNetworkConfig,
    PRESETS,
    makes="shapes",
    input=lambda config: INPUTS[config.encoder],
    sampling=lambda config, preset: ShapeSampling(INPUTS[config.encoder], points=300),
    schedule=lambda config: TrainingConfig(batch_size=64, learning_rate=1e-4),
    objective=_objective,
    threshold=lambda config: config.threshold,
    voxel_side=32,
    from_original=from_original,
    fitted=_fitted,
)
