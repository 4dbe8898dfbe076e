"""Tile tasks on Ray: as many at once as there are processors, GPUs and memory for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from pipeline.cluster import device_lanes, run_in_lanes
from pipeline.errors import ClusterError
from pipeline.progress import Progress
from pipeline.reconstruction.schedule import Work
from pipeline.reconstruction.stages import TileJob, surface_tile
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

    def __call__(self, work: Work, job: TileJob, items: Sequence[Any], title: str) -> Iterator[bool]:
        """What the tasks of the items return, as they come.

        Raises:
            ClusterError: if workers kept dying.
        """
        device = job.device if work is not surface_tile else "cpu"  # surfaces need no network
        memory = tile_memory(job.plans)
        lanes = device_lanes(_on_device, device, GPUS_PER_TILE, memory, TASK_RETRIES, work, ray.put(job))
        with Progress(title, len(items), "tile", is_shown=self.show_progress) as progress:
            try:
                for _, was_finished in run_in_lanes(lanes, items):
                    progress.update()
                    yield was_finished
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"workers kept dying while computing {title} ({type(error).__name__}); finished tiles are kept: "
                    "free some memory, then run the same command again"
                ) from error


def _on_device(device: str, work: Work, job: TileJob, item: Any) -> bool:
    return work(replace(job, device=device), item)
