"""How much memory the task of a tile takes, so that Ray runs as many at once as fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.reconstruction.plan import ScenePlan

# Measured as the largest resident size of a worker, with the packaged network: docs/reconstruction.md.
PROCESS_BYTES = 420 * 2**20
BYTES_PER_VOXEL = 620  # of the crop


def tile_memory(plans: Sequence[ScenePlan]) -> int:
    """Bytes of resident memory of a worker at its peak, for the largest crop of any level."""
    return PROCESS_BYTES + BYTES_PER_VOXEL * max(math.prod(plan.crop_shape) for plan in plans)
