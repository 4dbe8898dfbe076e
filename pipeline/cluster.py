"""Connecting to Ray, and running many small tasks with bounded submission."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pipeline.errors import ClusterError

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU keep seeing none

import ray

Item = TypeVar("Item")

# Large feature volumes are freed and allocated again for every crop: without these, glibc returns them
# to the system each time and the page faults cost more than the convolutions (2.5 times at 160^3).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
TASKS_IN_FLIGHT_PER_CPU = 2
PROBE_TIMEOUT_S = 5.0


@contextmanager
def ray_session(address: str = "auto", cpus: int | None = None) -> Iterator[None]:
    """Use Ray for the duration of a block.

    Args:
        address: `local` starts a private Ray in this process's machine; `HOST:PORT` joins a cluster;
            `auto` joins the cluster named by RAY_ADDRESS (so inside `ray job submit`), else starts a
            private one. A Ray that the calling program has already initialised is used as it is.
        cpus: processors of a private Ray; all of the machine's by default.

    Raises:
        ClusterError: if the cluster does not answer.
    """
    if ray.is_initialized():
        yield
        return
    if address not in ("auto", "local"):
        _probe(address)
    joins = address not in ("auto", "local") or (address == "auto" and bool(os.environ.get("RAY_ADDRESS")))
    runtime_env = {"env_vars": ALLOCATOR}
    try:
        if joins:
            target = "auto" if address == "auto" else address
            ray.init(
                address=target, logging_level=logging.ERROR, log_to_driver=False, runtime_env=runtime_env
            )
        else:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env=runtime_env,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterError(
            f"cannot reach Ray at {address}: {reason}; check --address and RAY_AUTH_MODE"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Fail within seconds where nobody listens: Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"cannot reach Ray at {address} ({error}); pass --address HOST:PORT of a running head node, or local"
        ) from error


def available_cpus() -> int:
    """Processors that Ray schedules on, over the whole cluster."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))


def run_windowed(
    submit: Callable[[Item], ray.ObjectRef[Any]], items: Iterable[Item], window: int
) -> Iterator[tuple[Item, Any]]:
    """Run one task for each item, at most `window` submitted at a time, in order of completion.

    Yields:
        (item, result); a task's own exception is raised here, after Ray's retries are spent.
    """
    waiting: dict[ray.ObjectRef[Any], Item] = {}
    queue = iter(items)
    exhausted = False
    while waiting or not exhausted:
        while not exhausted and len(waiting) < window:
            try:
                item = next(queue)
            except StopIteration:
                exhausted = True
            else:
                waiting[submit(item)] = item
        if waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                yield waiting.pop(reference), ray.get(reference)
