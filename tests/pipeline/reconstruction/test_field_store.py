"""A crop's field in the run directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convonet.surface.mise import MiseConfig, refine
from pipeline.reconstruction.field_store import read_field, write_field
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.store import RunStore
from tests.references.fields import spheres

PLAN = ScenePlan((0.0, 0.0, 0.0), 0.1, 2, (16, 16, 16), (2, 1, 1), halo_voxels=16, blend_voxels=4)


@pytest.mark.parametrize("steps", [(8, 4, 1), (8, 4, 2, 1)])
def test_a_stored_field_is_the_same_whole_and_the_same_where_neighbors_read_it(
    tmp_path: Path, steps: tuple[int, ...]
) -> None:
    store, region = RunStore(str(tmp_path)), PLAN.region_box(1)
    low, high = np.asarray(region.low), np.asarray(region.high)
    ball = spheres([(46.3, 17.2, 15.1)], [13.4])
    field = refine(ball, low, high, np.zeros((0, 3), np.int64), MiseConfig(steps))
    write_field(store, PLAN, 1, field, 0.0)
    whole, shell = read_field(store, 1, is_whole=True), read_field(store, 1, is_whole=False)
    assert whole is not None and shell is not None
    np.testing.assert_array_equal((whole.low, whole.high), (field.low, field.high))
    assert whole.config == field.config
    assert whole.keys.dtype == field.keys.dtype and whole.values.dtype == field.values.dtype
    np.testing.assert_array_equal(whole.keys, field.keys)
    np.testing.assert_array_equal(whole.values, field.values)
    for stored in (whole, shell):
        for ours, theirs in zip(stored.refined, field.refined, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    points = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True))), axis=-1)
    points = points.reshape(-1, 3)
    near = points[points[:, 0] <= PLAN.tile_box(1).low[0]]
    np.testing.assert_array_equal(whole.value_at(points), field.value_at(points))
    np.testing.assert_array_equal(shell.value_at(near), field.value_at(near))
