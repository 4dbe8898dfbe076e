"""Which Ray a command uses: known without importing Ray."""

from __future__ import annotations

import os
import sys


def joins(address: str) -> bool:
    """Whether an address names a running cluster, directly or by RAY_ADDRESS."""
    return address not in ("auto", "local") or (address == "auto" and bool(os.environ.get("RAY_ADDRESS")))


def would_start_ray(address: str) -> bool:
    """Whether `ray_session` would start a private Ray, where none is running or to be joined."""
    ray = sys.modules.get("ray")
    return not joins(address) and (ray is None or not ray.is_initialized())
