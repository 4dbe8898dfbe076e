"""Every piece of furniture stands on the floor, closes, and has the size of such things."""

import numpy as np
import pytest
import trimesh

from preprocessing.occupancy_labels import label_mesh
from preprocessing.procedural.furniture import (
    CEILING_KINDS,
    FURNITURE_KINDS,
    WALL_KINDS,
    make_furniture,
    random_rotation,
)
from preprocessing.procedural.solids import bounds_of, union_mesh, union_occupancy

SEEDS = range(5)


@pytest.mark.parametrize("kind", FURNITURE_KINDS)
def test_pieces_stand_centered_and_have_plausible_sizes(kind):
    for seed in SEEDS:
        low, high = bounds_of(make_furniture(kind, np.random.default_rng(seed)))
        assert (high if kind in CEILING_KINDS else low)[2] == pytest.approx(0.0, abs=1e-12)
        assert np.allclose((low + high)[:2], 0.0, atol=1e-9)
        assert (high - low).max() < 2.8 and (high - low).min() > 0.05, f"seed {seed}: {high - low}"


@pytest.mark.parametrize("kind", FURNITURE_KINDS)
def test_union_closes_and_agrees_with_the_half_spaces(kind):
    for seed in SEEDS:
        solids = make_furniture(kind, np.random.default_rng(seed))
        vertices, faces = union_mesh(solids)
        assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
        low, high = bounds_of(solids)
        queries = np.random.default_rng(seed).uniform(low - 0.01, high + 0.01, (10_000, 3))
        differs = label_mesh(vertices, faces, queries) != union_occupancy(solids, queries)
        # Queries within a micrometer of a face; 10,000 draws hit that shell once in a while.
        assert differs.sum() <= 3, f"seed {seed}: {differs.sum()} labels differ"


@pytest.mark.parametrize("kind", FURNITURE_KINDS)
def test_same_seed_same_bytes(kind):
    pair = [make_furniture(kind, np.random.default_rng(11)) for _ in range(2)]
    for first, second in zip(*pair, strict=True):
        assert first.vertices.tobytes() == second.vertices.tobytes()
        assert first.offsets.tobytes() == second.offsets.tobytes()


@pytest.mark.parametrize("thin", [0.02, 0.06])
@pytest.mark.parametrize("kind", FURNITURE_KINDS)
def test_no_part_is_thinner_than_asked(kind, thin):
    for seed in SEEDS:
        for solid in make_furniture(kind, np.random.default_rng(seed), thin):
            # Least width over the face normals; prisms of few sides are a little thinner than their radius.
            reach = solid.vertices @ solid.normals.T
            assert np.ptp(reach, axis=0).min() > 0.7 * thin, f"seed {seed}: {solid.bounds}"


def test_kinds_are_consistent_and_unknown_ones_refused():
    assert set(CEILING_KINDS) | set(WALL_KINDS) < set(FURNITURE_KINDS)
    with pytest.raises(KeyError):
        make_furniture("spaceship", np.random.default_rng(0))


def test_random_rotations_are_proper():
    for seed in range(20):
        rotation = random_rotation(np.random.default_rng(seed))
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
