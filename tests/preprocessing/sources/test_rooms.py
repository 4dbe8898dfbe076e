"""Samples of procedural scenes: exact labels, reproducible bytes."""

import numpy as np

from preprocessing.dataset import BLOCK, DatasetLayout
from preprocessing.procedural.synthetic_rooms import synthetic_room
from preprocessing.sources.rooms import CATEGORIES, BuildingUnit, RoomUnit
from preprocessing.sources.splits import split_of_seed

LAYOUT = DatasetLayout(
    shapes=8, categories=CATEGORIES, points=4 * BLOCK, uniform_queries=2 * BLOCK, near_queries=2 * BLOCK
)


def test_room_labels_equal_a_loop_over_the_half_spaces() -> None:
    samples, scene = RoomUnit(5).make(LAYOUT)[0], synthetic_room(5)
    queries = samples.near_queries[:600].astype(np.float64)
    expected = [
        any((solid.normals @ query + solid.offsets <= 0).all() for solid in scene.solids) for query in queries
    ]
    assert samples.near_occupancy[:600].tolist() == expected
    assert 0.2 < np.mean(expected) < 0.8


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    one, two, other = RoomUnit(5).make(LAYOUT)[0], RoomUnit(5).make(LAYOUT)[0], RoomUnit(6).make(LAYOUT)[0]
    assert one.points.tobytes() == two.points.tobytes()
    assert one.uniform_occupancy.tobytes() == two.uniform_occupancy.tobytes()
    assert one.points.tobytes() != other.points.tobytes()


def test_building_windows_are_scanned_and_sampled_in_turn() -> None:
    windows = BuildingUnit(66).make(LAYOUT)
    assert [window.has_scan_noise for window in windows] == [True, False] * 4
    for window in windows:
        assert np.abs(window.points).max() <= 0.5
        assert len(window.points) <= LAYOUT.points
        assert window.near_occupancy.any()
        assert not window.near_occupancy.all()


def test_the_split_follows_from_the_seed_alone() -> None:
    splits = [split_of_seed(seed) for seed in range(2000)]
    assert splits == [split_of_seed(seed) for seed in range(2000)]
    assert 0.02 < splits.count("val") / 2000 < 0.06
    assert 0.02 < splits.count("test") / 2000 < 0.06
