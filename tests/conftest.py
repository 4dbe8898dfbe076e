"""A small scan and a private Ray for end-to-end tests; the network is the packaged one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.references.solid_scene import scan_points


@pytest.fixture(scope="session")
def scene_points() -> np.ndarray:
    """(N, 3) points on a room-like scene of 6 x 5 x 4 m: a slab, a wall, boxes and a ball."""
    return scan_points(seed=3, count=30_000)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One private Ray for a file's tests that run in this process."""
    from pipeline.cluster import ray_session

    with ray_session("local", cpus=2):
        yield
