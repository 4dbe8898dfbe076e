"""Batches made ahead of the training step, by processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from queue import Empty
from typing import Any

from convonet.training import BatchSource

BATCHES_AHEAD = 6
SECONDS_BETWEEN_LOOKS = 5.0


class Prefetched:
    """A source whose batches are drawn in order by worker processes; the batches are those of the source itself.

    Args:
        make_source: called in every worker; must be picklable.
        workers: number of processes; worker w makes the steps congruent to w.
        first_step, last_step: the range of steps, half-open.
        batch_size, rank: as `BatchSource.batch` takes them.
    """

    def __init__(
        self,
        make_source: Callable[[], BatchSource],
        workers: int,
        first_step: int,
        last_step: int,
        batch_size: int,
        rank: int = 0,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._queues: list[Any] = [context.Queue(BATCHES_AHEAD) for _ in range(workers)]
        self._workers = []
        for number, queue in enumerate(self._queues):
            steps = range(first_step + (number - first_step) % workers, last_step, workers)
            arguments = (make_source, queue, steps, batch_size, rank)
            self._workers.append(context.Process(target=_draw, args=arguments, daemon=True))
            self._workers[-1].start()

    def batch(self, step: int, batch_size: int, rank: int = 0) -> Any:
        """Batch `step`; steps must be asked for in order.

        Raises:
            RuntimeError: if the worker that makes it has died.
        """
        del batch_size, rank
        number = step % len(self._workers)
        while True:
            was_alive = self._workers[number].is_alive()  # asked first: a last batch may come before the end
            try:
                made, batch = self._queues[number].get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                if not was_alive:
                    raise RuntimeError(
                        f"the process that makes training batches died before step {step}; its own message is above"
                    ) from None
                continue
            assert made == step
            return batch

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.terminate()
            worker.join()


def _draw(
    make_source: Callable[[], BatchSource], queue: Any, steps: range, batch_size: int, rank: int
) -> None:
    source = make_source()
    for step in steps:
        queue.put((step, source.batch(step, batch_size, rank)))
