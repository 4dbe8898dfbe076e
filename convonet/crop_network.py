"""What the sliding window knows of a network: crops of points go in, logits at any position of the crop come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from convonet.layers.point_encoder import PointHints

LARGEST_TILE = 112  # voxels; a crop of 160 takes about 2 GiB


class CropNetwork(nn.Module, ABC):
    """A network that reconstructs scenes of any size, crop by crop.

    Positions are in voxel units of a crop: x, y, z from its lowest corner, the voxels' faces at whole numbers. A crop
    starts and ends on multiples of `pooling_factor` of one lattice of the scene, and shows the network at least
    `receptive_radius` voxels around every query. Subclasses have a `config`, a frozen dataclass; `has_hints` in it says
    whether points may carry hints, `logits_per_voxel` that the logit is a distance.
    """

    config: Any

    @property
    @abstractmethod
    def receptive_radius(self) -> int:
        """Voxels around a query that a crop shows: all that the logit depends on, where the network is local."""

    @property
    @abstractmethod
    def pooling_factor(self) -> int:
        """Crop origins and sides are multiples of this number of voxels."""

    @abstractmethod
    def encode(
        self,
        points: Tensor,
        batch_index: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        hints: PointHints | None = None,
        margin: int = 0,
    ) -> Any:
        """Features of a batch of crops.

        Args:
            points: (N, 3) float32 x, y, z in voxel units of each crop, inside the grid.
            batch_index: (N,) int64 crop of each point.
            batch_size: B, the number of crops.
            grid_shape: (D, H, W) voxels along z, y, x; multiples of `pooling_factor`.
            hints: what is known of the points beside their positions; ignored by networks that take none.
            margin: voxels that all queries will keep from the crop's faces; what they do not depend on need not be
                computed.

        Returns:
            What `decode` takes.

        Raises:
            ValueError: if a side of the grid is not a multiple of the pooling factor, or a point is outside.
        """

    @abstractmethod
    def decode(self, features: Any, queries: Tensor, batch_index: Tensor) -> Tensor:
        """Occupancy logits (N,) at (N, 3) float32 queries in voxel units of crop `batch_index`."""

    @property
    def tile_voxels(self) -> int:
        """Longest side of the box that one crop is asked about, unless the user wants another."""
        return LARGEST_TILE

    @property
    def threshold(self) -> float:
        """Occupancy probability at the surface, unless the user wants another."""
        return 0.5 if self.logits_per_voxel else 0.4

    @property
    def knows_levels(self) -> bool:
        """Whether it was trained for every level of a pyramid: with hints, and sheets of every thickness."""
        return bool(getattr(self.config, "has_hints", False))

    @property
    def logits_per_voxel(self) -> float:
        """Slope of the logit across a surface; 0 where the logit is not a distance."""
        return float(getattr(self.config, "logits_per_voxel", 0.0))

    @property
    def voxel_side(self) -> float | None:
        """Side of a voxel where the training scenes filled the unit cube; None for networks of any scale."""
        return None

    def at_origin(self, origin: tuple[float, float, float]) -> CropNetwork:
        """The network for crops whose voxels begin at `origin`, in voxel units of the scan's coordinates.

        Only networks that see absolute positions care.
        """
        return self

    def check_grid(self, grid_shape: tuple[int, int, int]) -> None:
        """Refuse crops that the U-Net cannot halve.

        Raises:
            ValueError: if a side is not a multiple of the pooling factor.
        """
        if any(side % self.pooling_factor for side in grid_shape):
            raise ValueError(f"grid sides {grid_shape} must be multiples of {self.pooling_factor}")

    def forward(
        self,
        points: Tensor,
        point_batch: Tensor,
        batch_size: int,
        grid_shape: tuple[int, int, int],
        queries: Tensor,
        query_batch: Tensor,
        hints: PointHints | None = None,
    ) -> Tensor:
        """Encode and decode in one call, as training does: (Q,) logits."""
        return self.decode(
            self.encode(points, point_batch, batch_size, grid_shape, hints), queries, query_batch
        )
