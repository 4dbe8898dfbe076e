"""Encoders of point clouds: one frame, a whole sequence, its two ends, and Gaussian latent codes.

All share one body, a PointNet of residual blocks with a maximum over the points between them
(Mescheder et al. 2019, supplement 1.2; Niemeyer et al. 2019, supplement 1.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.layers.latent_gaussian import LatentGaussian
from convonet.layers.pointnet import ResnetPointnet, join_pooled
from convonet.layers.resnet_block import resnet_blocks

LATENT_BLOCKS = 3


def stack_frames(sequence: Tensor) -> Tensor:
    """Coordinates of each tracked point over the whole sequence: (B, L, N, 3) to (B, N, 3 L), frame by frame."""
    batch_size, _, count, _ = sequence.shape
    return sequence.transpose(1, 2).reshape(batch_size, count, -1)


class FirstFramePointnet(ResnetPointnet):
    """Spatial encoder: the first cloud of a sequence (B, L, N, 3) to a code of the shape at t = 0."""

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, L, N, 3) to (B, code_size)."""
        return super().forward(sequence[:, 0])


class TemporalResnetPointnet(ResnetPointnet):
    """Temporal encoder: the trajectories of a sequence (B, L, N, 3) to a code of its motion.

    Point n of every frame is the same physical point: a trajectory is one "point" of 3 L coordinates.
    """

    def __init__(self, code_size: int, frames: int, hidden: int) -> None:
        super().__init__(code_size, hidden, 3 * frames)
        self.frames = frames

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, L, N, 3) to (B, code_size).

        Raises:
            ValueError: if the sequence has another number of frames than the encoder.
        """
        if sequence.shape[1] != self.frames:
            raise ValueError(
                f"a sequence of {sequence.shape[1]} frames for an encoder of {self.frames}; "
                f"resample the sequence to {self.frames} frames"
            )
        return super().forward(stack_frames(sequence))


class ResnetPointnetPair(nn.Module):
    """Temporal encoder of the two end clouds, which need not correspond: one PointNet, codes side by side."""

    def __init__(self, code_size: int, hidden: int) -> None:
        super().__init__()
        self.pointnet = ResnetPointnet(code_size // 2, hidden)

    def forward(self, ends: Tensor) -> Tensor:
        """(B, 2, N, 3), the first and the last cloud, to (B, code_size)."""
        return torch.cat([self.pointnet(ends[:, 0]), self.pointnet(ends[:, 1])], dim=-1)


class LatentPointnet(nn.Module):
    """Posterior of a latent code given a sequence and, where there is one, the motion's code.

    With `frames` = 1 it sees the first frame alone (the shape's latent z), else the stacked trajectories
    (the motion's latent z_t).
    """

    def __init__(self, latent_size: int, code_size: int, frames: int, hidden: int) -> None:
        super().__init__()
        self.frames = frames
        self.fc_pos = nn.Linear(3 * frames, 2 * hidden)
        self.blocks = resnet_blocks(LATENT_BLOCKS, 2 * hidden, hidden)
        self.c_layers = nn.ModuleList(
            nn.Linear(code_size, 2 * hidden) for _ in range(LATENT_BLOCKS if code_size else 0)
        )
        self.fc_mean = nn.Linear(hidden, latent_size)
        self.fc_logstd = nn.Linear(hidden, latent_size)

    def forward(self, sequence: Tensor, code: Tensor) -> LatentGaussian:
        """(B, L, N, 3) trajectories and (B, C) codes, C may be 0, to the posterior of (B, Z) latent codes.

        Raises:
            ValueError: if the sequence has another number of frames than the encoder.
        """
        if self.frames not in (1, sequence.shape[1]):
            raise ValueError(
                f"a sequence of {sequence.shape[1]} frames for a latent encoder of {self.frames}; "
                f"resample the sequence to {self.frames} frames"
            )
        net = self.fc_pos(stack_frames(sequence[:, : self.frames]))
        for index, block in enumerate(self.blocks):
            if len(self.c_layers):
                net = net + self.c_layers[index](code).unsqueeze(1)
            net = block(net)
            if index + 1 < len(self.blocks):
                net = join_pooled(net)
        net = net.amax(dim=1)
        return LatentGaussian(self.fc_mean(net), self.fc_logstd(net))
