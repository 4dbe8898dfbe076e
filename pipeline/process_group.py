"""The process group of a distributed training run: who meets where, and how it ends."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import ray
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

TIMEOUT = timedelta(minutes=30)
INTERFACE = "GLOO_SOCKET_IFNAME"


@contextmanager
def process_group(rank: int, world_size: int, device: torch.device) -> Iterator[None]:
    """Join the other workers of a Ray Train run for the duration of a block: over NCCL on GPUs, gloo on processors.

    Ray's own set-up, and torch's, have the workers meet on a port of every interface, and whoever reaches it can read
    and write there. This one listens on the address of its node alone: in a private Ray the loopback interface.
    """
    address = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    listener = None
    if rank == 0:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, 0), family=family)
    host, port = broadcast_from_rank_zero((address, listener.getsockname()[1] if listener else 0))
    store = TCPStore(
        host,
        port,
        world_size,
        is_master=rank == 0,
        timeout=TIMEOUT,
        master_listen_fd=None if listener is None else listener.detach(),
        use_libuv=False,
    )
    if address == "127.0.0.1":
        os.environ.setdefault(INTERFACE, "lo0" if sys.platform == "darwin" else "lo")
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    try:
        yield
    finally:
        # A distributed wrapper holds itself in a circle. Freed after its process group, it would keep the interpreter's
        # lock while it waits for gloo's threads, and those may wait for that lock. Here the group still stands.
        gc.collect()
        distributed.destroy_process_group()
