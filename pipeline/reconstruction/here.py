"""Tile tasks in the process that was started, for scenes of one tile: Ray's start would take longer than they do."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from convonet.pieces import piece_threads
from pipeline.reconstruction.crop_field import network_on
from pipeline.reconstruction.schedule import RunTasks
from pipeline.reconstruction.stages import TileJob, TileRecord

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST = 2**31 - 1


@contextmanager
def tasks_here(model: str, device: str) -> Iterator[RunTasks]:
    """What runs tasks one by one, with the network loaded; this program gets its threads back afterwards.

    Torch has one thread here as in a worker of Ray: with more, sums are added up in another order, and the mesh would
    depend on the machine in its last bits. The others work on pieces of the crop.
    """
    threads = torch.get_num_threads()
    _keep_freed_memory()
    network_on(model, device)
    try:
        with piece_threads(threads):
            yield _run
    finally:
        torch.set_num_threads(threads)
        network_on.cache_clear()


def _run(
    work: Callable[[TileJob, Any], TileRecord], job: TileJob, items: Sequence[Any], title: str
) -> Iterator[TileRecord]:
    for item in items:
        yield work(job, item)


def _keep_freed_memory() -> None:
    """Have glibc reuse the memory of feature volumes, as in the workers (`pipeline.cluster.ALLOCATOR`)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # of another C library
            library = ctypes.CDLL(None)
            library.mallopt(MMAP_THRESHOLD, LARGEST)
            library.mallopt(TRIM_THRESHOLD, LARGEST)
