"""Tile tasks in the process that was started, for scenes of one tile: Ray's start would take longer than they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.reconstruction.crop_field import network_on


@contextmanager
def network_here(model: str, device: str) -> Iterator[None]:
    """Load the network that tasks will ask for; it may use as many threads as this program does.

    A worker of Ray has one thread for its one processor; here no other task waits for the rest.
    """
    threads = torch.get_num_threads()
    network_on(model, device)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        network_on.cache_clear()
