"""Work on a crop in pieces, by several threads where these would be idle otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_pools: list[ThreadPoolExecutor] = []


@contextmanager
def piece_threads(count: int) -> Iterator[None]:
    """Have so many threads work on pieces.

    The pieces are the same whatever the number of threads, and torch has one thread for each; so results do not depend
    on the machine, which those of torch's own threads may in their last bits.
    """
    with ThreadPoolExecutor(count) as pool:
        _pools.append(pool)
        try:
            yield
        finally:
            _pools.remove(pool)


def each_piece(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """Results of pieces, in their order. Only without a graph."""
    if not _pools:
        return [work(piece) for piece in pieces]
    is_cast, number_format = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def here(piece: Piece) -> Result:  # modes belong to a thread
        with torch.inference_mode(), torch.autocast("cpu", number_format, enabled=is_cast):
            return work(piece)

    return list(_pools[-1].map(here, pieces))
