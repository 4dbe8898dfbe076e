"""Connecting to Ray, and running many small tasks with bounded submission."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pipeline.errors import ClusterError

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU keep seeing none

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import RayError

Item = TypeVar("Item")

# Large feature volumes are freed and allocated again for every crop: without these, glibc returns them
# to the system each time and the page faults cost more than the convolutions (2.5 times at 160^3).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
TASKS_IN_FLIGHT_PER_CPU = 2
PROBE_TIMEOUT_S = 5.0
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
# Switched off, as it is on Windows and macOS, a node's address is 127.0.0.1 and all of its servers bind to that.
LOOPBACK_SWITCH = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR


@contextmanager
def ray_session(address: str = "auto", cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """Use Ray for the duration of a block.

    A private Ray listens on this machine's loopback interface only, and only to processes that know its token, which is
    drawn anew for each session and never written to disk.

    Args:
        address: `local` starts a private Ray in this process's machine; `HOST:PORT` joins a cluster;
            `auto` joins the cluster named by RAY_ADDRESS (so inside `ray job submit`), else starts a
            private one. A Ray that the calling program has already initialised is used as it is.
        cpus, gpus: processors and GPUs of a private Ray; all of the machine's by default.

    Raises:
        ClusterError: if the cluster does not answer, or refuses the token.
    """
    if ray.is_initialized():
        yield
        return
    if address not in ("auto", "local"):
        _probe(address)
    joins = address not in ("auto", "local") or (address == "auto" and bool(os.environ.get("RAY_ADDRESS")))
    try:
        if joins:
            _start(address=address)
        else:
            with _guarded():
                _start(address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterError(
            f"cannot reach Ray at {address}: {reason}; check --address and RAY_AUTH_MODE"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        if not joins:
            _reload_authentication()


def _start(**options: Any) -> None:
    ray.init(logging_level=logging.ERROR, log_to_driver=False, runtime_env={"env_vars": ALLOCATOR}, **options)


@contextmanager
def _guarded() -> Iterator[None]:
    """While a private Ray starts: it binds to loopback alone and asks everyone for a token of its own.

    Ray's processes inherit the variables; this process and what it starts later do not keep them.
    """
    before = {name: os.environ.get(name) for name in (AUTH_MODE, AUTH_TOKEN, LOOPBACK_SWITCH)}
    os.environ[AUTH_MODE], os.environ[AUTH_TOKEN] = "token", secrets.token_hex(32)
    os.environ[LOOPBACK_SWITCH] = "0"
    reachable, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    _reload_authentication()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = reachable
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _reload_authentication() -> None:
    """Have Ray read its mode and token from the environment again."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


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
