"""The configurations of the original experiments, by name, with the loss that each is trained with."""

from __future__ import annotations

from convonet.oflow.losses import FlowLossConfig
from convonet.oflow.network import OccupancyFlowConfig
from convonet.oflow.onet4d import OccupancyNetwork4DConfig

OCCUPANCY_THRESHOLD = 0.3  # of the published meshes, also of ONet-4D

_IMAGES = OccupancyFlowConfig(
    spatial_encoder="resnet18",
    temporal_encoder="conv3d",
    code_size=256,
    temporal_hidden=32,
)

FLOWS: dict[str, OccupancyFlowConfig] = {
    "oflow_pointcloud": OccupancyFlowConfig(
        code_size=128, spatial_hidden=128, temporal_hidden=128, velocity_hidden=128
    ),
    "oflow_pointcloud_w_correspond": OccupancyFlowConfig(),
    "oflow_img": _IMAGES,
    "oflow_img_w_correspond": _IMAGES,
    "oflow_generative": OccupancyFlowConfig(
        spatial_encoder=None,
        temporal_encoder=None,
        decoder="simple",
        latent_size=128,
        latent_hidden=128,
        decoder_hidden=128,
        velocity_hidden=128,
        velocity_blocks=3,
    ),
    "oflow_interpolation": OccupancyFlowConfig(
        frames=30, spatial_encoder=None, temporal_encoder="pointnet_pair", decoder=None
    ),
    "oflow_shape_matching": OccupancyFlowConfig(
        spatial_encoder=None, temporal_encoder="pointnet_pair", decoder=None
    ),
    "oflow_repr_power": OccupancyFlowConfig(
        frames=50,
        spatial_encoder=None,
        temporal_encoder=None,
        decoder="simple",
        decoder_hidden=128,
        velocity_hidden=128,
    ),
}

SPACE_TIME: dict[str, OccupancyNetwork4DConfig] = {
    "onet4d_pointcloud": OccupancyNetwork4DConfig(),
    "onet4d_img": OccupancyNetwork4DConfig(temporal_encoder="conv3d", code_size=256, temporal_hidden=32),
}

PRESETS: dict[str, OccupancyFlowConfig | OccupancyNetwork4DConfig] = {**FLOWS, **SPACE_TIME}

LOSSES: dict[str, FlowLossConfig] = {
    "oflow_pointcloud": FlowLossConfig(),
    "oflow_pointcloud_w_correspond": FlowLossConfig(correspondence=True),
    "oflow_img": FlowLossConfig(),
    "oflow_img_w_correspond": FlowLossConfig(correspondence=True),
    "oflow_generative": FlowLossConfig(correspondence=True),
    "oflow_interpolation": FlowLossConfig(
        reconstruction=False, correspondence=True, backward_correspondence=True
    ),
    "oflow_shape_matching": FlowLossConfig(reconstruction=False, correspondence=True),
    "oflow_repr_power": FlowLossConfig(),
}
"""The loss of each Occupancy Flow preset; ONet-4D has one loss only, `onet4d_loss`."""
