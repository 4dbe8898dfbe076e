"""The record of ONet-4D, the baseline of Niemeyer et al. 2019."""

from __future__ import annotations

from typing import Literal

from convonet.family import Family, SequenceSampling
from convonet.oflow.objective import SpaceTimeObjective
from convonet.oflow.onet4d import OccupancyNetwork4DConfig
from convonet.oflow.originals import from_original
from convonet.oflow.presets import OCCUPANCY_THRESHOLD, SPACE_TIME
from convonet.training import TrainingConfig


def _input(config: OccupancyNetwork4DConfig) -> Literal["images", "tracks"]:
    return "images" if config.temporal_encoder == "conv3d" else "tracks"


FAMILY = Family(
    OccupancyNetwork4DConfig,
    SPACE_TIME,
    makes="moments",
    input=_input,
    sampling=lambda config, preset: SequenceSampling(config.frames, _input(config)),
    schedule=lambda config: TrainingConfig(batch_size=16, learning_rate=1e-4),
    objective=lambda config, terms: SpaceTimeObjective(),
    threshold=lambda config: OCCUPANCY_THRESHOLD,
    from_original=from_original,
)
