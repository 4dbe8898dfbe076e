"""A small scan and a private Ray for end-to-end tests; the network is the packaged one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.references.solid_scene import scan_points

# Tests that kill, stop or wait for processes: two of these at once on two cores would wait for one another in vain.
NEED_CALM = re.compile(
    r"tests/(benchmarks|deploy|jobs)/|tests/test_wheel|tests/pipeline/reconstruction/test_(resume|object_store)"
    r"|tests/pipeline/test_(?!full_disk|cli|scan_reading|overwriting|litter)"
)


class ByNeed(LoadScopeScheduling):  # type: ignore[misc]
    """With `-n 2`: tests that need calm run one by one, beside those of other files."""

    def _split_scope(self, nodeid: str) -> str:
        return "calm" if NEED_CALM.match(nodeid) else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByNeed:
    """See `ByNeed`."""
    return ByNeed(config, log)


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
