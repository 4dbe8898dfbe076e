"""The velocity field: where a point of space moves to next, at any time, given the codes of the motion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convonet.layers.resnet_block import resnet_blocks


class VelocityField(nn.Module):
    """v(x, y, z, t | code, latent): residual blocks, each preceded by the sum of the projected codes.

    Niemeyer et al. 2019, section 3.1 and supplement 1.1.
    """

    def __init__(self, code_size: int, latent_size: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.code_size = code_size
        self.latent_size = latent_size
        self.fc_p = nn.Linear(4, hidden)
        self.fc_c = nn.ModuleList(nn.Linear(code_size, hidden) for _ in range(blocks if code_size else 0))
        self.fc_z = nn.ModuleList(nn.Linear(latent_size, hidden) for _ in range(blocks if latent_size else 0))
        self.blocks = resnet_blocks(blocks, hidden, hidden)
        self.fc_out = nn.Linear(hidden, 3)

    def forward(self, points: Tensor, times: Tensor, code: Tensor, latent: Tensor) -> Tensor:
        """Velocities.

        Args:
            points: (B, N, 3).
            times: (B,) time of each item of the batch; a sequence lasts from 0 to 1.
            code: (B, C) temporal code, C may be 0.
            latent: (B, Z) latent code of the motion, Z may be 0.

        Returns:
            (B, N, 3) velocities, units of length per duration of the sequence.
        """
        time_axis = times.view(-1, 1, 1).expand(len(points), points.shape[1], 1)
        net = self.fc_p(torch.cat([points, time_axis], dim=-1))
        for index, block in enumerate(self.blocks):
            if self.code_size:
                net = net + self.fc_c[index](code).unsqueeze(1)
            if self.latent_size:
                net = net + self.fc_z[index](latent).unsqueeze(1)
            net = block(net)
        return self.fc_out(torch.relu(net))  # type: ignore[no-any-return]
