"""Named configurations: the experiments of Mescheder et al. 2019, section 4, in the original's sizes."""

from __future__ import annotations

from convonet.onet.network import OccupancyNetworkConfig

PRESETS: dict[str, OccupancyNetworkConfig] = {
    # one image, 224 x 224 (configs/img/onet)
    "onet_img": OccupancyNetworkConfig(encoder="resnet18", feature_size=256, threshold=0.2),
    # the paper's ablations: no conditional batch norm; conditional batch norm without residual blocks
    # (configs/ablation/architecture_nocbn and architecture_noresnet)
    "onet_img_nocbn": OccupancyNetworkConfig(
        encoder="resnet18", feature_size=256, decoder="batchnorm", threshold=0.2
    ),
    "onet_img_noresnet": OccupancyNetworkConfig(
        encoder="resnet18", feature_size=256, decoder="cbatchnorm_noresnet", threshold=0.2
    ),
    # 300 points with noise of deviation 0.005 (configs/pointcloud/onet)
    "onet_pointcloud": OccupancyNetworkConfig(
        encoder="pointnet_resnet", feature_size=512, encoder_hidden=512, threshold=0.2
    ),
    # a 32^3 grid (configs/voxels/onet)
    "onet_voxel": OccupancyNetworkConfig(
        encoder="voxel_simple", feature_size=256, encoder_hidden=32, threshold=0.2
    ),
    # cars, airplanes, sofas and chairs have one network each, of the same sizes (configs/unconditional)
    "onet_unconditional": OccupancyNetworkConfig(
        encoder="none",
        feature_size=0,
        decoder="simple",
        decoder_hidden=128,
        latent_size=128,
        threshold=0.2,
    ),
    # one embedding for each training shape (configs/repr_power/onet). How many there are is a matter of the
    # data: dataclasses.replace(preset, shape_count=...)
    "onet_repr_power": OccupancyNetworkConfig(encoder="index", feature_size=512, shape_count=4746),
}
