"""Where work runs: what the cluster has or can get, what a task asks of it, and which device a process was given.

The machine of the command decides nothing. A cluster's head has no GPU as a rule, while its workers do.
"""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import state

from pipeline.errors import ClusterError

UNLIMITED_NODES = 100  # stands for no limit in what an autoscaler may add


def cluster_has(resource: str) -> float:
    """How much of a resource such as `CPU` or `GPU` there is, or could be with all nodes the autoscaler may add."""
    return max(sum(count * float(sizes.get(resource, 0)) for count, sizes in kind) for kind in _nodes())


def _nodes() -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, dict[str, Any]]]]:
    """(number, resources of each) of the nodes that there are, and of those that the autoscaler could have."""
    nodes: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    config = state.get_cluster_config()
    groups = [] if config is None else list(config.node_group_configs)
    return [(1, node) for node in nodes], [
        (group.max_count if group.max_count >= 0 else UNLIMITED_NODES, group.resources) for group in groups
    ]


def largest_memory() -> int:
    """Bytes of memory that Ray schedules on the node with most of it, of those there are or could be."""
    now, possible = _nodes()
    return int(max((sizes.get("memory", 0) for _, sizes in (*now, *possible)), default=0))


def room(memory_each: int) -> int:
    """How many tasks of one processor and so many bytes run at once on nodes without GPUs; see `cluster_has`."""
    return max(
        sum(
            count * min(int(sizes.get("CPU", 0)), int(sizes.get("memory", 0) // max(1, memory_each)))
            for count, sizes in kind
            if not sizes.get("GPU", 0)
        )
        for kind in _nodes()
    )


def available_cpus() -> int:
    """Processors that Ray schedules on, over the whole cluster, those of nodes it may still add included."""
    return max(1, int(cluster_has("CPU")))


def uses_gpus(device: str) -> bool:
    """Whether work on `device` asks Ray for GPUs.

    Raises:
        ClusterError: if it must and the cluster has none.
    """
    if device == "cpu":
        return False
    has_gpus = cluster_has("GPU") > 0
    if device == "cuda" and not has_gpus:
        raise ClusterError(
            "device cuda was asked for, but no node that Ray knows of has a GPU; use --device cpu"
        )
    return has_gpus


def assigned_device(device: str) -> str:
    """The device of this task or worker: `cpu` unless Ray gave it a GPU."""
    given = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return device if given else "cpu"


def cpus_for_each(workers: int, use_gpus: bool) -> int:
    """Most processors that each of `workers` can have at once, so that all of them find room on the nodes there are.

    At least 1, which is also the answer where the nodes are yet to come.
    """
    nodes = [resources for _, resources in _nodes()[0]]
    sizes = sorted({int(node.get("CPU", 0)) // share for node in nodes for share in range(1, workers + 1)})
    for cpus in reversed([size for size in sizes if size > 0]):
        room = [int(node.get("CPU", 0)) // cpus for node in nodes]
        if use_gpus:
            room = [min(fits, int(node.get("GPU", 0))) for fits, node in zip(room, nodes, strict=True)]
        if sum(room) >= workers:
            return cpus
    return 1
