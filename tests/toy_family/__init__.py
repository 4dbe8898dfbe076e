"""A family of networks as an extender would add it: this folder, and one line in `convonet.registry.FAMILIES`.

What lies near points is inside: occupied voxels, blurred by one learned convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from convonet.crop_network import CropNetwork
from convonet.family import Family
from convonet.layers.point_encoder import PointHints
from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.sampling import sample_trilinear


@dataclass(frozen=True)
class BlurConfig:
    """Sizes of a `BlurNetwork`.

    Attributes:
        reach: voxels that the blur reaches.
    """

    kind: ClassVar[str] = "blur"

    reach: int = 2

    def build(self) -> BlurNetwork:
        """A network with fresh weights."""
        return BlurNetwork(self)


class BlurNetwork(CropNetwork):
    """Before any training what is inside is less than a voxel from the middle of an occupied one."""

    def __init__(self, config: BlurConfig) -> None:
        super().__init__()
        self.config: BlurConfig = config
        side = 2 * config.reach + 1
        self.blur = nn.Conv3d(1, 1, side, padding=config.reach)
        nn.init.dirac_(self.blur.weight)
        nn.init.constant_(self.blur.bias, -0.5)

    @property
    def receptive_radius(self) -> int:
        """See `CropNetwork`."""
        return self.config.reach + 1

    @property
    def pooling_factor(self) -> int:
        """See `CropNetwork`."""
        return 1

    def encode(
        self,
        points: Tensor,
        batch_index: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        hints: PointHints | None = None,
        margin: int = 0,
    ) -> Tensor:
        """See `CropNetwork`."""
        occupied = OccupiedVoxels.of_points(points, batch_index, grid_shape).flat_index
        volume = torch.zeros(batch_size, 1, *grid_shape, device=points.device)
        volume.view(-1)[occupied] = 1.0
        blurred: Tensor = self.blur(volume)
        return blurred

    def decode(self, features: Tensor, queries: Tensor, batch_index: Tensor) -> Tensor:
        """See `CropNetwork`."""
        return sample_trilinear(features, queries, batch_index)[:, 0]


FAMILY = Family(BlurConfig, {"blur": BlurConfig()})
