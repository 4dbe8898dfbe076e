"""Features at a query position to its occupancy logit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from convonet.layers.resnet_block import resnet_blocks
from convonet.precision import relu_


def periodic_position(queries: Tensor) -> Tensor:
    """Position inside the voxel as sine and cosine: continuous everywhere, equal in every voxel.

    Args:
        queries: (N, 3) in voxel units.

    Returns:
        (N, 6). An absolute position would break equivariance under shifts by whole voxels; the offset
        from the voxel's center would jump at its faces.
    """
    phase = (2 * math.pi) * (queries - torch.floor(queries))
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)


class VoxelDecoder(nn.Module):
    """Residual blocks, each conditioned on the sampled feature by addition (Peng et al. 2020, sec. 3.3)."""

    def __init__(self, feature_size: int, hidden_size: int, blocks: int) -> None:
        super().__init__()
        self.fc_position = nn.Linear(6, hidden_size)
        self.fc_feature = nn.ModuleList(nn.Linear(feature_size, hidden_size) for _ in range(blocks))
        self.blocks = resnet_blocks(blocks, hidden_size, hidden_size)
        self.fc_out = nn.Linear(hidden_size, 1)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """(N, 3) queries in voxel units and their (N, C) features to (N,) logits."""
        if not torch.is_grad_enabled():
            device = features.device.type
            if torch.is_autocast_enabled(device) and features.dtype == torch.float32:
                features = features.to(torch.get_autocast_dtype(device))
            with torch.autocast(device, enabled=False):  # it would not reach products in place
                return self._forward_in_place(queries, features)
        x = self.fc_position(periodic_position(queries).to(features.dtype))
        for fc_feature, block in zip(self.fc_feature, self.blocks, strict=True):
            x = block(x + fc_feature(features))
        return self.fc_out(torch.relu(x)).squeeze(1)  # type: ignore[no-any-return]

    def _forward_in_place(self, queries: Tensor, features: Tensor) -> Tensor:
        """The same without a graph: every sum is accumulated by the matrix product that makes its last term."""

        def parameters(layer: nn.Module | Tensor) -> tuple[Tensor, Tensor]:
            assert isinstance(layer, nn.Linear)
            return layer.weight.to(features.dtype).T, layer.bias.to(features.dtype)

        weight, bias = parameters(self.fc_position)
        x = torch.addmm(bias, periodic_position(queries).to(features.dtype), weight)
        bias = torch.zeros_like(bias)
        for fc_feature, block in zip(self.fc_feature, self.blocks, strict=True):
            weight, feature_bias = parameters(fc_feature)
            x.addmm_(features, weight).add_(bias + feature_bias)
            weight, bias = parameters(block.fc_0)
            hidden = relu_(torch.addmm(bias, relu_(x.clone()), weight))
            weight, bias = parameters(block.fc_1)
            x.addmm_(hidden, weight)
        weight, out_bias = parameters(self.fc_out)
        return torch.addmm(out_bias, relu_(x.add_(bias)), weight).squeeze(1)
