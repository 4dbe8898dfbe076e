"""Tile tasks on Ray: as many at once as there are processors, GPUs and memory for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from pipeline.cluster import device_lanes, run_in_lanes
from pipeline.errors import ClusterError
from pipeline.progress import Progress
from pipeline.reconstruction.stages import TileJob, TileRecord, surface_tile
from pipeline.reconstruction.tile_memory import tile_memory

GPUS_PER_TILE = 0.5
TASK_RETRIES = 5


@dataclass(frozen=True)
class TasksOnRay:
    """Runs tasks on the Ray of this session.

    Attributes:
        show_progress: draw progress bars.
    """

    show_progress: bool

    def __call__(
        self, work: Callable[[TileJob, Any], TileRecord], job: TileJob, items: Sequence[Any], title: str
    ) -> Iterator[TileRecord]:
        """Records of the items as they come.

        Raises:
            ClusterError: if workers kept dying.
        """
        device = job.device if work is not surface_tile else "cpu"  # surfaces need no network
        memory = tile_memory(job.plans)
        lanes = device_lanes(_on_device, device, GPUS_PER_TILE, memory, TASK_RETRIES, work, ray.put(job))
        with Progress(title, len(items), "tile", is_shown=self.show_progress) as progress:
            try:
                for _, record in run_in_lanes(lanes, items):
                    progress.update()
                    yield record
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"workers kept dying while computing {title} ({type(error).__name__}); finished tiles are kept: "
                    "free some memory, then run the same command again"
                ) from error


def _on_device(
    device: str, work: Callable[[TileJob, Any], TileRecord], job: TileJob, item: Any
) -> TileRecord:
    return work(replace(job, device=device), item)
