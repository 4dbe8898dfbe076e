"""An unordered cloud to one feature vector (Mescheder et al. 2019, supplement 1.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.layers.resnet_block import resnet_blocks


def join_pooled(x: Tensor) -> Tensor:
    """Give every point its cloud's maximum beside its own activations: (B, N, H) to (B, N, 2 H)."""
    pooled = x.amax(dim=1, keepdim=True)
    return torch.cat([x, pooled.expand_as(x)], dim=2)


class ResnetPointnet(nn.Module):
    """PointNet of five residual blocks; max pooling over the cloud joins each block's input.

    The original's `pointnet_resnet`.
    """

    def __init__(self, feature_size: int, hidden_size: int, point_size: int = 3) -> None:
        super().__init__()
        self.fc_pos = nn.Linear(point_size, 2 * hidden_size)
        self.blocks = resnet_blocks(5, 2 * hidden_size, hidden_size)
        self.fc_c = nn.Linear(hidden_size, feature_size)

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, point_size) points to (B, feature_size) features, whatever the order of the points.

        Raises:
            ValueError: if the points are not (B, N, point_size) with N at least 1.
        """
        check_points(points, self.fc_pos.in_features)
        x = self.blocks[0](self.fc_pos(points))
        for block in list(self.blocks)[1:]:
            x = block(join_pooled(x))
        return self.fc_c(torch.relu(x.amax(dim=1)))  # type: ignore[no-any-return]


class SimplePointnet(nn.Module):
    """PointNet of four plain layers with max pooling between them. The original's `pointnet_simple`."""

    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__()
        self.fc_pos = nn.Linear(3, 2 * hidden_size)
        self.layers = nn.ModuleList(nn.Linear(2 * hidden_size, hidden_size) for _ in range(4))
        self.fc_c = nn.Linear(hidden_size, feature_size)

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 3) points to (B, feature_size) features.

        Raises:
            ValueError: if the points are not (B, N, 3) with N at least 1.
        """
        check_points(points, 3)
        x = self.layers[0](torch.relu(self.fc_pos(points)))
        for layer in list(self.layers)[1:]:
            x = layer(torch.relu(join_pooled(x)))
        return self.fc_c(torch.relu(x.amax(dim=1)))  # type: ignore[no-any-return]


def check_points(points: Tensor, point_size: int) -> None:
    """Refuse what is no batch of clouds."""
    if points.ndim != 3 or points.shape[1] == 0 or points.shape[2] != point_size:
        raise ValueError(
            f"points must be (B, N, {point_size}) with at least one point, not {tuple(points.shape)}"
        )
