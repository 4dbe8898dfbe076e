"""Tile tasks in the process that was started, for scenes of one tile: Ray's start would take longer than they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from convonet.layers.pieces import piece_threads
from pipeline.reconstruction.crop_field import network_on
from pipeline.reconstruction.schedule import RunTasks, Work
from pipeline.reconstruction.stages import TileJob


@contextmanager
def tasks_here(model: str, device: str) -> Iterator[RunTasks]:
    """What runs tasks one by one, with the network loaded; this program gets its threads back afterwards.

    Torch has one thread here as in a worker of Ray: with more, sums are added up in another order, and the mesh would
    depend on the machine in its last bits. The others work on pieces of the crop.
    """
    threads = torch.get_num_threads()
    network_on(model, device)
    try:
        with piece_threads(threads):
            yield _run
    finally:
        torch.set_num_threads(threads)
        network_on.cache_clear()


def _run(work: Work, job: TileJob, items: Sequence[Any], title: str) -> Iterator[bool]:
    for item in items:
        yield work(job, item)
