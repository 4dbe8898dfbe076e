"""Tile tasks in the process that was started, for scenes of one tile: Ray's start would take longer than they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.reconstruction.crop_field import network_on


@contextmanager
def network_here(model: str, device: str) -> Iterator[None]:
    """Load the network that tasks will ask for, and give this program its threads back afterwards.

    The network has one thread here as in a worker of Ray, though no other task waits for the rest: with more, sums
    are added up in another order, and the mesh would depend on the machine in its last bits.
    """
    threads = torch.get_num_threads()
    network_on(model, device)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        network_on.cache_clear()
