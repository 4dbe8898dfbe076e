"""A small scan and a private Ray for end-to-end tests; the network is the packaged one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.references.solid_scene import scan_points

TAKES_BOTH_CORES = ("benchmarks", "deploy", "jobs", "pipeline", "test_wheel.py")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run beside each other (`-n 2 --dist loadgroup`), those that start Ray and commands run one by one.

    They come first, as they take longest; the tests of any other file stay together for their fixtures.
    """
    for item in items:
        place = item.path.relative_to(Path(__file__).parent)
        is_heavy = place.parts[0] in TAKES_BOTH_CORES
        item.add_marker(pytest.mark.xdist_group("commands" if is_heavy else str(place)))
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in TAKES_BOTH_CORES)


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
