"""Tile tasks in the process that was started, for scenes of one tile: Ray's start would take longer than they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from convonet.pieces import piece_threads
from pipeline.reconstruction.crop_field import network_on


@contextmanager
def network_here(model: str, device: str) -> Iterator[None]:
    """Load the network that tasks will ask for, and give this program its threads back afterwards.

    Torch has one thread here as in a worker of Ray: with more, sums are added up in another order, and the mesh would
    depend on the machine in its last bits. The others work on pieces of the crop.
    """
    threads = torch.get_num_threads()
    network_on(model, device)
    try:
        with piece_threads(threads):
            yield
    finally:
        torch.set_num_threads(threads)
        network_on.cache_clear()
