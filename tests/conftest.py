"""A small scan and a private Ray for end-to-end tests; the network is the packaged one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.references.solid_scene import scan_points

TAKES_BOTH_CORES = ("benchmarks", "deploy", "jobs", "pipeline", "test_wheel.py")


def first_folder(item: pytest.Item) -> str:
    """Folder or file of tests/ that a test is in."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where tests run beside each other (`-n 2 --dist loadgroup`), those that start Ray and commands run one by one.

    The tests of any other file stay together for their fixtures.
    """
    is_heavy = first_folder(item) in TAKES_BOTH_CORES
    item.add_marker(pytest.mark.xdist_group("commands" if is_heavy else str(item.path)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with those that take longest."""
    items.sort(key=lambda item: first_folder(item) not in TAKES_BOTH_CORES)


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
