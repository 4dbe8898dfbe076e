"""Whether Ray's own processes still live: their death becomes an error at once, not a minute later a line of C++."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray._private import ray_constants, worker

from pipeline.errors import ClusterError
from pipeline.interruption import interrupt_main

VITAL = (ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER)
POLL_S = 1.0
PROBE_S = 5.0
PATIENCE_S = 15.0  # a head that restarts, or a network that hiccups, is waited for


@contextmanager
def watched(is_private: bool) -> Iterator[None]:
    """Run a block of the main thread, and end it when Ray is gone for good.

    Args:
        is_private: whether this process has started Ray itself.

    Raises:
        ClusterError: if a process of the private Ray died, or the head of the cluster is not reached any more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lost: list[str] = []
    ended = threading.Event()
    find = _dead_process if is_private else _unreachable_head()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if reason := find():
                lost.append(reason)
                interrupt_main()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        if lost and isinstance(error, KeyboardInterrupt | ray.exceptions.RayError):
            raise ClusterError(f"{lost[0]}; what is finished is kept: run the same command again") from None
        raise
    finally:
        ended.set()
        watcher.join()


def private_processes() -> list[psutil.Process]:
    """The processes of the private Ray and all that they have started; none where this process has started no Ray."""
    node = worker._global_node
    groups: list[list[Any]] = [] if node is None else list(node.all_processes.values())
    found: list[psutil.Process] = []
    for started in itertools.chain(*groups):
        with suppress(psutil.Error):
            process = psutil.Process(started.process.pid)
            found += [process, *process.children(recursive=True)]
    return found


def half_started(others: list[psutil.Process]) -> list[psutil.Process]:
    """Processes of a private Ray that was interrupted while it started, and is known to nobody yet.

    They are held up first, so that none starts another one that would outlive them.
    """
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        if child not in others:
            with suppress(psutil.Error):
                child.suspend()
                found += [child, *child.children(recursive=True)]
    return found


def _dead_process() -> str:
    """Which process of the private Ray has died that it cannot do without; empty if none has."""
    node = worker._global_node
    dead: list[tuple[str, object]] = node.dead_processes() if node is not None else []
    vital = [name for name, _ in dead if name in VITAL]
    return f"Ray's own process {vital[0]} died" if vital else ""


def _unreachable_head() -> Callable[[], str]:
    """A function that says whether the head has been silent for longer than it may."""
    address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    heard = time.monotonic()

    def find() -> str:
        nonlocal heard
        try:
            socket.create_connection((host, int(port)), timeout=PROBE_S).close()
            heard = time.monotonic()
        except OSError as error:
            if time.monotonic() - heard > PATIENCE_S:
                return f"the head of the cluster at {address} does not answer any more ({error})"
        return ""

    return find
