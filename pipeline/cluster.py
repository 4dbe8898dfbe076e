"""Connecting to Ray, and running many small tasks with bounded submission."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.errors import ClusterError

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU keep seeing none

import psutil
import ray
from ray._private import ray_constants, worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import RayError, RayTaskError

from pipeline.cluster_watch import half_started, private_processes, watched
from pipeline.devices import assigned_device, available_cpus, cluster_has, largest_memory, room, uses_gpus
from pipeline.interruption import check_interrupted, speaking_through, uninterrupted
from pipeline.ray_address import joins
from pipeline.ray_folder import ray_folder

Item = TypeVar("Item")

TASKS_IN_FLIGHT = 2  # for each that runs at once
PROBE_TIMEOUT_S = 5.0
LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
STDERR = 2
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
            private one. A Ray that the calling program has already initialized is used as it is.
        cpus, gpus: processors and GPUs of a private Ray; all of the machine's by default.

    Raises:
        ClusterError: if the cluster does not answer, refuses the token, or is lost on the way.
    """
    if ray.is_initialized():
        yield
        return
    if address not in ("auto", "local"):
        _probe(address)
    is_joined = joins(address)
    with ExitStack() as folder, _witnessed():
        others = psutil.Process().children()
        try:
            _open(address, is_joined, cpus, gpus, folder)
            with watched(is_private=not is_joined):
                yield
        except RayError as error:
            raise ClusterError(
                f"Ray lost too many of its processes ({type(error).__name__}: {_first_line(error)}); "
                "what is finished is kept: run the same command again"
            ) from error
        finally:
            _close(is_joined, others)


def _close(is_joined: bool, others: list[psutil.Process]) -> None:
    """Leave the cluster, or end the private Ray with all that it has started; `others` are children from before it."""
    processes = [] if is_joined else private_processes() or half_started(others)
    ray.shutdown()
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    if not is_joined:
        _reload_authentication()


def _open(address: str, is_joined: bool, cpus: int | None, gpus: int | None, folder: ExitStack) -> None:
    """Join a cluster, or start a private Ray with its files in a folder that goes when `folder` is closed."""
    try:
        if is_joined:
            _start(address=address)
            return
        place = folder.enter_context(ray_folder())
        with _guarded():
            _start(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                _temp_dir=str(place),
                # Else this process waits, and for ever, if one of the first workers dies or takes a minute to start.
                _system_config={"prestart_worker_first_driver": False},
            )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        if not is_joined:
            raise ClusterError(
                f"cannot start Ray: {_first_line(error)}; what is finished is kept: run the same command again"
            ) from error
        raise ClusterError(
            f"cannot reach Ray at {address}: {_first_line(error)}; check --address and RAY_AUTH_MODE"
        ) from error
    except OSError as error:
        if "AF_UNIX" in str(error):
            raise ClusterError(
                f"the path of the folder for temporary files ({tempfile.gettempdir()}) is too long for Ray's sockets; "
                "set a short one, as in TMPDIR=/tmp"
            ) from error
        raise ClusterError(f"cannot start Ray: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _start(**options: Any) -> None:
    """Start or join Ray; a handler of SIGTERM that the program has set stays, and serves all the while."""
    is_kept = callable(signal.getsignal(signal.SIGTERM))
    try:
        with _muted(is_kept):
            ray.init(
                logging_level=logging.ERROR,
                log_to_driver=False,
                **options,
            )
    except Exception as error:
        if type(error) is Exception:  # what Ray raises where one of its processes dies at the start
            raise RuntimeError(str(error)) from error
        raise


@contextmanager
def _witnessed() -> Iterator[None]:
    """While Ray is used: a shell that says so, should this process end with no word of its own.

    Ray's native code ends it at once where the raylet dies before it is connected to, for one, and no Python runs any
    more; so does the system where memory runs out.
    """
    words = "tessera: ended by Ray or from outside; what is finished is kept: run the same command again"
    with subprocess.Popen(
        ["/bin/sh", "-c", f"read word || echo '{words}' >&2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as witness:
        assert witness.stdin is not None
        try:
            yield
        finally:
            witness.communicate(b"ended\n")


@contextmanager
def _muted(keeps_handler: bool) -> Iterator[None]:
    """While Ray starts: what it would print of its own troubles stays out, as our errors say what matters.

    Args:
        keeps_handler: whether Ray leaves SIGTERM alone as well. Its native handler prints a stack and aborts.
    """
    level = os.environ.get(LOG_LEVEL)
    os.environ.setdefault(LOG_LEVEL, "fatal")
    stderr = os.dup(STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)  # native code says there that it has understood the level
    try:
        with ExitStack() as changes:
            changes.enter_context(speaking_through(stderr))
            changes.enter_context(_changed(worker, "listen_error_messages", _ignore))
            # half connected, this process would crash at its end
            changes.enter_context(_changed(worker, "connect", uninterrupted()(worker.connect)))
            if keeps_handler:
                changes.enter_context(_changed(ray._private.utils, "set_sigterm_handler", _ignore))
                changes.enter_context(_changed(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True))
            yield
    finally:
        os.dup2(stderr, STDERR)
        os.close(stderr)
        os.close(nowhere)
        if level is None:
            del os.environ[LOG_LEVEL]


@contextmanager
def _changed(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _ignore(*_: object) -> None:
    pass


@contextmanager
def _guarded() -> Iterator[None]:
    """While a private Ray starts: it binds to loopback alone and asks everyone for a token of its own.

    Ray's processes inherit the variables; this process and what it starts later do not keep them.
    """
    before = {name: os.environ.get(name) for name in (AUTH_MODE, AUTH_TOKEN, LOOPBACK_SWITCH)}
    os.environ[AUTH_MODE], os.environ[AUTH_TOKEN] = "token", secrets.token_hex(32)
    os.environ[LOOPBACK_SWITCH] = "0"
    _reload_authentication()
    try:
        with _changed(ray_constants, "ENABLE_RAY_CLUSTER", False):
            yield
    finally:
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


@dataclass(frozen=True)
class Lane(Generic[Item]):
    """One way to run an item, of several that run at once.

    Attributes:
        submit: starts a task for an item.
        window: how many tasks may be submitted at a time, asked again and again: nodes come and go.
    """

    submit: Callable[[Item], ray.ObjectRef[Any]]
    window: Callable[[], int]


def device_lanes(
    work: Callable[..., Any],
    device: str,
    gpus_each: float,
    memory_each: int,
    retries: int,
    *arguments: Any,
) -> list[Lane[Any]]:
    """Lanes of the tasks `work(device, *arguments, item)`: on processors, on GPUs, or with `auto` on all nodes at once.

    A task on a GPU takes a processor too. Nodes that have GPUs compute on these alone, so that one machine's results
    all come from one kind of device. `device` is what the task's own process shall use. Each task asks for
    `memory_each` bytes, or for all that the largest node has where that is less: better tight than never.

    Raises:
        ClusterError: if GPUs are asked for and there are none.
    """

    memory = min(memory_each, largest_memory())

    def lane(gpus: float, window: Callable[[], int]) -> Lane[Any]:
        options = ray.remote(num_cpus=1, num_gpus=gpus, memory=memory, max_retries=retries)
        task = options(_on_assigned_device)
        return Lane(lambda item: task.remote(work, device, *arguments, item), window)

    if not uses_gpus(device):
        return [lane(0, lambda: TASKS_IN_FLIGHT * available_cpus())]

    lanes = [lane(gpus_each, lambda: max(1, int(TASKS_IN_FLIGHT * cluster_has("GPU") / gpus_each)))]
    if (
        device == "auto"
    ):  # no more at a time than run at once, or those that wait would fill the nodes with GPUs
        lanes.append(lane(0, lambda: room(memory)))
    return lanes


def _on_assigned_device(work: Callable[..., Any], device: str, *arguments: Any) -> Any:
    return work(assigned_device(device), *arguments)


def run_in_lanes(lanes: Sequence[Lane[Item]], items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
    """Run one task for each item in whichever lane has room first, in order of completion.

    Yields:
        (item, result); a task's own exception is raised here, after Ray's retries are spent.
    """
    waiting: dict[ray.ObjectRef[Any], tuple[int, Item]] = {}
    submitted = [0] * len(lanes)
    queue = iter(items)
    is_exhausted = False
    while waiting or not is_exhausted:
        check_interrupted()
        for number, lane in enumerate(lanes):
            room = 0 if is_exhausted else lane.window()
            while not is_exhausted and submitted[number] < room:
                try:
                    item = next(queue)
                except StopIteration:
                    is_exhausted = True
                else:
                    waiting[lane.submit(item)] = number, item
                    submitted[number] += 1
        if waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                number, item = waiting.pop(reference)
                submitted[number] -= 1
                try:
                    result = ray.get(reference)
                except RayTaskError as error:
                    raise error.cause from error  # what the task itself raised
                yield item, result
