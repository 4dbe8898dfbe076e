"""Occupancy Flow: 4D reconstruction by a shape and a velocity field (Niemeyer et al. 2019), and ONet-4D."""

from convonet.oflow.losses import FlowBatch, FlowLossConfig, OccupancySamples, flow_loss
from convonet.oflow.network import FlowCodes, OccupancyFlow, OccupancyFlowConfig
from convonet.oflow.ode import SolverConfig
from convonet.oflow.onet4d import OccupancyNetwork4D, OccupancyNetwork4DConfig, onet4d_loss
from convonet.oflow.originals import from_original
from convonet.oflow.presets import LOSSES, PRESETS

__all__ = [
    "LOSSES",
    "PRESETS",
    "FlowBatch",
    "FlowCodes",
    "FlowLossConfig",
    "OccupancyFlow",
    "OccupancyFlowConfig",
    "OccupancyNetwork4D",
    "OccupancyNetwork4DConfig",
    "OccupancySamples",
    "SolverConfig",
    "flow_loss",
    "from_original",
    "onet4d_loss",
]
