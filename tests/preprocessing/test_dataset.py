"""The store of training data: what is written comes back through plain zarr, and damage shows."""

from __future__ import annotations

import dataclasses
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trimesh
import zarr

from preprocessing.batches.training_crops import CropConfig, CropSource
from preprocessing.dataset import (
    BLOCK,
    BlockReader,
    DatasetLayout,
    RejectedShape,
    ShapeSamples,
    Views,
    check_complete,
    check_shard,
    create_dataset,
    damaged_shards,
    finish_dataset,
    finished_shards,
    read_layout,
    read_record,
    write_shard,
)
from preprocessing.errors import DatasetError
from preprocessing.mesh_samples import ShapeLabels, mesh_samples
from preprocessing.watertight import WatertightConfig

LAYOUT = DatasetLayout(
    shapes=5,
    categories=("ball",),
    points=2 * BLOCK,
    uniform_queries=BLOCK,
    near_queries=2 * BLOCK,
    shapes_per_shard=2,
    has_distances=True,
)
RADIUS = 0.3


def ball(number: int) -> ShapeSamples:
    """A ball of radius 0.3 in the unit cube, exactly labeled."""
    rng = np.random.default_rng(number)
    directions = rng.standard_normal((LAYOUT.points - 7, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    uniform = rng.uniform(-0.5, 0.5, (LAYOUT.uniform_queries, 3)).astype(np.float32)
    near = (directions[rng.integers(len(directions), size=LAYOUT.near_queries)] * RADIUS).astype(np.float32)
    near += rng.normal(0, 0.02, near.shape).astype(np.float32)
    return ShapeSamples(
        points=(directions * RADIUS).astype(np.float32),
        normals=directions.astype(np.float32),
        has_scan_noise=True,
        uniform_queries=uniform,
        uniform_occupancy=np.linalg.norm(uniform, axis=1) < RADIUS,
        near_queries=near,
        near_occupancy=np.linalg.norm(near, axis=1) < RADIUS,
        uniform_distances=np.linalg.norm(uniform, axis=1) - np.float32(RADIUS),
        near_distances=np.linalg.norm(near, axis=1) - np.float32(RADIUS),
        location=np.array([1.0, 2.0, number]),
        scale=4.0,
        category="ball",
        split="train",
        name=f"ball-{number}",
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "balls.zarr"
    create_dataset(path, LAYOUT, {"source": "test"})
    write_shard(path, 0, [ball(0).row(LAYOUT), ball(1).row(LAYOUT)])
    write_shard(path, 1, [ball(2).row(LAYOUT), RejectedShape(3, "ball-3", "has no volume")])
    write_shard(path, 2, [ball(4).row(LAYOUT)])
    finish_dataset(path)
    return path


def test_plain_zarr_reads_what_was_written(store: Path) -> None:
    group = zarr.open_group(store, mode="r")
    expected = ball(2)
    count = int(group["point_count"][2])
    assert count == len(expected.points)
    np.testing.assert_array_equal(group["points"][2][:count], expected.points)
    np.testing.assert_allclose(group["normals"][2][:count] / 127, expected.normals, atol=0.5 / 127)
    np.testing.assert_array_equal(
        np.unpackbits(group["near_occupancy"][2]).astype(bool), expected.near_occupancy
    )
    np.testing.assert_array_equal(group["valid"][:], [True, True, True, False, True])
    np.testing.assert_array_equal(group["location"][2], expected.location)


def test_a_block_of_2048_points_is_one_inner_chunk(store: Path) -> None:
    group = zarr.open_group(store, mode="r")
    for name in ("points", "uniform_queries", "near_queries"):
        assert group[name].chunks == (1, BLOCK, 3)
        assert group[name].shards == (2, group[name].shape[1], 3)


def test_records_tell_what_is_finished_and_what_was_rejected(store: Path) -> None:
    assert finished_shards(store, LAYOUT) == [0, 1, 2]
    assert read_record(store, 1).rejected == (RejectedShape(3, "ball-3", "has no volume"),)
    assert read_layout(store) == (LAYOUT, {"source": "test"})


def test_a_flipped_byte_is_found(store: Path) -> None:
    assert check_shard(store, 0) == []
    file = store / "points" / "c" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(bytes(data))
    assert check_shard(store, 0) == ["points"]


@pytest.mark.parametrize("name", ["points", "near_occupancy", "is_window"])
def test_a_shard_that_was_lost_is_named_before_training_and_made_again(store: Path, name: str) -> None:
    if read_record(store, 1).checksums[name] == "absent":
        name = "valid"  # all of is_window is zero: nothing to lose
    file = (store / name / "c" / "1").joinpath(*["0"] * len(LAYOUT.arrays[name].tail))
    file.unlink()
    where = f"{name}/c/1.* of shard 1 is missing; run the `tessera preprocess` command that made it again"
    with pytest.raises(DatasetError, match=where):
        check_complete(store, LAYOUT)
    assert finished_shards(store, LAYOUT) == [0, 2]
    before = read_record(store, 1).checksums
    rows = [ball(2).row(LAYOUT), RejectedShape(3, "ball-3", "has no volume")]
    assert write_shard(store, 1, rows).checksums == before
    check_complete(store, LAYOUT)
    assert check_shard(store, 1) == []


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_lost_or_wrong_description_of_an_array_is_named_and_written_again(
    store: Path, is_lost: bool
) -> None:
    file = store / "points" / "zarr.json"
    before = file.read_text()
    file.unlink() if is_lost else file.write_text(before.replace('"fill_value": 0.0', '"fill_value": 1.0'))
    with pytest.raises(
        DatasetError, match=r"points/zarr\.json is missing or damaged; run the `tessera preprocess` command"
    ):
        check_complete(store, LAYOUT)
    create_dataset(store, LAYOUT, {"source": "test"})
    assert file.read_text() == before
    check_complete(store, LAYOUT)
    assert all(check_shard(store, shard) == [] for shard in range(3))


def test_whichever_bit_flips_it_is_found_and_mended_or_refused(store: Path) -> None:
    """What `preprocess` and `info --check` do about a finished store, over files of every kind."""
    rng = np.random.default_rng(11)
    good = {path: path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}
    root = store / "zarr.json"
    kinds = {path: path.name if path.suffix == ".json" else path.relative_to(store).parts[0] for path in good}
    kinds[root] = "root"
    per_kind = {kind: [path for path in good if kinds[path] == kind] for kind in set(kinds.values())}
    shapes = [ball(0), ball(1), ball(2), RejectedShape(3, "ball-3", "has no volume"), ball(4)]
    mended = refused = 0
    for trial in range(72):
        kind = sorted(per_kind)[trial % len(per_kind)]
        path = per_kind[kind][rng.integers(len(per_kind[kind]))]
        data = bytearray(good[path])
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(data))
        try:
            create_dataset(store, LAYOUT, {"source": "test"})
            for shard in damaged_shards(store, LAYOUT):
                rows = [shapes[number] for number in LAYOUT.shard_shapes(shard)]
                write_shard(
                    store, shard, [row if isinstance(row, RejectedShape) else row.row(LAYOUT) for row in rows]
                )
            finish_dataset(store)
            mended += 1
            values = {at for at, content in good.items() if at.read_bytes() != content}
            assert values <= {root}, (trial, path, bit)  # its consolidated copy may be ordered anew
            assert read_layout(store) == (LAYOUT, {"source": "test"})
            check_complete(store, LAYOUT)
        except DatasetError:
            refused += 1
            assert path == root  # whether it is this dataset cannot be known
        for at, content in good.items():
            at.write_bytes(content)
    assert mended > 60 and refused > 0


def test_a_reader_does_not_take_a_shard_that_is_gone_for_zeros(store: Path) -> None:
    reader = BlockReader(store, LAYOUT, "points")
    (store / "points" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(DatasetError, match="shard 0 is missing; run the `tessera preprocess`"):
        reader.read(0, 0)


def test_a_shard_written_late_is_never_missing_to_a_reader(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow writer of an older command that is killed anywhere leaves the finished shard as it was."""
    rows = [ball(0).row(LAYOUT), ball(1).row(LAYOUT)]
    replace, seen = Path.replace, []

    def killed(partial: Path, target: Path) -> Path:
        seen.append(target)
        assert check_shard(store, 0) == []
        if len(seen) == 4:
            raise KeyboardInterrupt
        return replace(partial, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shard(store, 0, rows)
    assert check_shard(store, 0) == []
    assert not list(store.rglob(".*partial*"))


def test_what_killed_writers_have_left_goes_once_it_is_old(store: Path) -> None:
    old, fresh = (store / "points" / "c" / "0" / "0" / f".0.partial-{name}" for name in ("old", "fresh"))
    creating = store.parent / f".{store.name}.creating-x"
    creating.mkdir()
    for left in (old, fresh):
        left.write_bytes(b"half")
    for left in (old, creating):
        os.utime(left, (0, 0))
    create_dataset(store, LAYOUT, {"source": "test"})
    write_shard(store, 0, [ball(0).row(LAYOUT), ball(1).row(LAYOUT)])
    assert [left.exists() for left in (old, creating, fresh)] == [False, False, True]


def test_commands_that_start_at_once_share_one_store(tmp_path: Path) -> None:
    path, gate = tmp_path / "balls.zarr", threading.Barrier(8)

    def start(_: int) -> None:
        gate.wait()
        create_dataset(path, LAYOUT, {"source": "test"})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(start, range(8)))
    assert read_layout(path)[0] == LAYOUT
    assert [entry.name for entry in tmp_path.iterdir()] == ["balls.zarr"]


def test_writing_a_shard_again_gives_the_same_bytes(store: Path) -> None:
    before = read_record(store, 0).checksums
    assert write_shard(store, 0, [ball(0).row(LAYOUT), ball(1).row(LAYOUT)]).checksums == before


def test_other_settings_or_other_things_are_refused(store: Path, tmp_path: Path) -> None:
    create_dataset(store, LAYOUT, {"source": "test"})
    with pytest.raises(DatasetError, match="other settings"):
        create_dataset(store, dataclasses.replace(LAYOUT, shapes=6), {"source": "test"})
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("mine")
    with pytest.raises(DatasetError, match="not a Tessera dataset"):
        create_dataset(tmp_path / "x", LAYOUT, {})
    with pytest.raises(DatasetError, match="not a Tessera dataset"):
        read_layout(tmp_path / "nowhere")


MOVING = dataclasses.replace(
    LAYOUT, shapes=3, has_distances=False, frames=4, voxel_side=16, views=2, view_size=12
)
SEEN = dataclasses.replace(LAYOUT, shapes=2, near_queries=0, voxel_side=24, views=3, view_size=12)


def random_views(rng: np.random.Generator, layout: DatasetLayout) -> Views:
    times = (layout.frames,) if layout.frames else ()
    return Views(
        rgb=rng.integers(0, 256, (*times, layout.views, 12, 12, 3)).astype(np.uint8),
        depth=rng.random((*times, layout.views, 12, 12)).astype(np.float32),
        extrinsics=rng.standard_normal((layout.views, 3, 4)),
        intrinsics=rng.standard_normal((layout.views, 3, 3)),
    )


def check_views(group: zarr.Group, row: int, expected: Views | None) -> None:
    assert expected is not None
    for name in ("rgb", "depth", "extrinsics", "intrinsics"):
        value = getattr(expected, name)
        np.testing.assert_array_equal(group[f"view_{name}"][row], value)
        assert group[f"view_{name}"].dtype == value.dtype


def moving_ball(number: int, layout: DatasetLayout = MOVING) -> ShapeSamples:
    """A ball that swells over four times; row i of its points is the same place of it at each."""
    rng = np.random.default_rng(number)
    still, radii = ball(number), RADIUS * np.linspace(1, 1.5, layout.frames)[:, None]
    directions = still.points / np.float32(RADIUS)
    uniform = rng.uniform(-0.5, 0.5, (layout.frames, layout.uniform_queries, 3)).astype(np.float32)
    near = rng.uniform(-0.5, 0.5, (layout.frames, layout.near_queries, 3)).astype(np.float32)
    return dataclasses.replace(
        still,
        points=(radii[..., None] * directions).astype(np.float32),
        normals=np.repeat(directions[None], layout.frames, axis=0),
        uniform_queries=uniform,
        uniform_occupancy=np.linalg.norm(uniform, axis=-1) < radii,
        near_queries=near,
        near_occupancy=np.linalg.norm(near, axis=-1) < radii,
        times=np.linspace(0, 1, layout.frames, dtype=np.float32),
        voxels=rng.random((layout.frames, 16, 16, 16)) < 0.3,
        views=random_views(rng, layout),
    )


def seen_ball(number: int) -> ShapeSamples:
    """A ball with voxels and pictures, and no queries near it."""
    rng = np.random.default_rng(number)
    return dataclasses.replace(
        ball(number),
        near_queries=np.zeros((0, 3), np.float32),
        near_occupancy=np.zeros(0, np.bool_),
        is_window=True,
        voxels=rng.random((24, 24, 24)) < 0.3,
        views=random_views(rng, SEEN),
    )


def test_sequences_come_back_through_plain_zarr(tmp_path: Path) -> None:
    path = tmp_path / "moving.zarr"
    create_dataset(path, MOVING, {})
    write_shard(path, 0, [moving_ball(0).row(MOVING), moving_ball(1).row(MOVING)])
    write_shard(path, 1, [moving_ball(2).row(MOVING)])
    finish_dataset(path)
    assert read_layout(path)[0] == MOVING
    group, expected = zarr.open_group(path, mode="r"), moving_ball(2)
    count = expected.points.shape[1]
    assert group["point_count"][2] == count
    assert group["points"].shape == (3, 4, 2 * BLOCK, 3)
    assert group["points"].chunks == (1, 1, BLOCK, 3)
    np.testing.assert_array_equal(group["points"][2][:, :count], expected.points)
    assert not group["points"][2][:, count:].any()
    np.testing.assert_allclose(group["normals"][2][:, :count] / 127, expected.normals, atol=0.5 / 127)
    np.testing.assert_array_equal(group["times"][2], expected.times)
    for kind in ("uniform", "near"):
        queries = group[f"{kind}_queries"][2]
        occupied = np.unpackbits(group[f"{kind}_occupancy"][2], axis=-1).astype(bool)
        np.testing.assert_array_equal(queries, getattr(expected, f"{kind}_queries"))
        np.testing.assert_array_equal(occupied, getattr(expected, f"{kind}_occupancy"))
    np.testing.assert_array_equal(np.unpackbits(group["voxels"][2], axis=-1).astype(bool), expected.voxels)
    check_views(group, 2, expected.views)
    assert group["view_rgb"].shape == (3, 4, 2, 12, 12, 3)
    assert group["view_rgb"].chunks == (1, 4, 1, 12, 12, 3)  # what one camera sees is read at once
    radii = np.linalg.norm(group["points"][2][:, :count], axis=-1)
    np.testing.assert_allclose(radii / radii[:1], np.linspace(1, 1.5, 4)[:, None] * np.ones(count), rtol=1e-5)


def test_voxels_and_pictures_come_back_through_plain_zarr(tmp_path: Path) -> None:
    path = tmp_path / "seen.zarr"
    create_dataset(path, SEEN, {})
    write_shard(path, 0, [seen_ball(0).row(SEEN), seen_ball(1).row(SEEN)])
    finish_dataset(path)
    assert read_layout(path)[0] == SEEN
    group, expected = zarr.open_group(path, mode="r"), seen_ball(1)
    np.testing.assert_array_equal(np.unpackbits(group["voxels"][1], axis=-1).astype(bool), expected.voxels)
    check_views(group, 1, expected.views)
    assert group["view_rgb"].chunks == (1, 1, 12, 12, 3)
    assert group["is_window"][:].all()
    assert "near_queries" not in group
    assert "times" not in group


def test_a_made_shape_comes_back_with_the_labels_of_its_form(tmp_path: Path) -> None:
    """From a mesh through closing, sampling, voxels and pictures to the store and back."""
    radii = np.array([1.0, 0.6, 0.4])  # of an ellipsoid far from the origin
    mesh = trimesh.creation.icosphere(5)
    layout = dataclasses.replace(SEEN, shapes=1, near_queries=BLOCK)
    labels = ShapeLabels("egg", "ball", "test", seed=4, up="y", provenance={"file": "egg.ply"})
    made = [
        mesh_samples(
            mesh.vertices * radii + [10, 20, -5], np.asarray(mesh.faces), labels, layout, WatertightConfig()
        ).row(layout)
        for _ in range(2)
    ]
    path = tmp_path / "egg.zarr"
    create_dataset(path, layout, {})
    assert write_shard(path, 0, made[:1]).checksums == write_shard(path, 0, made[1:]).checksums
    group = zarr.open_group(path, mode="r")
    location, scale = group["location"][0], float(group["scale"][0])
    np.testing.assert_allclose(location, [10, 20, -5], atol=1e-9)
    assert scale == pytest.approx(2)

    def level(positions: np.ndarray) -> np.ndarray:
        """Below 1 in the ellipsoid, 1 on it; facets lie up to 0.001 inside."""
        return np.linalg.norm((positions * scale) / radii, axis=-1)

    assert group["point_count"][0] == layout.points
    np.testing.assert_allclose(level(group["points"][0]), 1, atol=2e-3)
    assert np.abs(group["uniform_queries"][0]).max() > 0.54
    for kind in ("uniform", "near"):
        queries = group[f"{kind}_queries"][0]
        clear = np.abs(level(queries) - 1) > 5e-3
        occupied = np.unpackbits(group[f"{kind}_occupancy"][0]).astype(bool)
        np.testing.assert_array_equal(occupied[clear], level(queries)[clear] < 1)
    offsets = np.linalg.norm(group["near_queries"][0].astype(float), axis=1) * np.abs(
        1 - 1 / level(group["near_queries"][0])
    )
    assert 0.002 < np.median(offsets) < 0.02
    assert (np.abs(group["normals"][0].astype(float)).max(axis=1) > 0.57 * 127).all()
    axis = (np.arange(24) + 0.5) / 24 - 0.5
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    voxels = np.unpackbits(group["voxels"][0], axis=-1).astype(bool)
    assert voxels[level(cells) < 0.99].all()
    reach = 3**0.5 / 48
    assert not voxels[np.linalg.norm(cells, axis=-1) * (1 - 1 / level(cells)) > reach * 2.5].any()
    assert group["view_depth"][0].max() > 1.5
    record = read_record(path, 0).provenance[0]
    assert (record["method"], record["was_watertight"], record["file"]) == ("exact", True, "egg.ply")


def test_samples_that_do_not_fit_the_layout_are_refused() -> None:
    with pytest.raises(
        DatasetError, match=r"ball-0: points has shape \(4096, 3\), the layout \(4, 4096, 3\)"
    ):
        ball(0).row(MOVING)
    with pytest.raises(
        DatasetError, match="ball-0: the layout asks for times, which this source does not have"
    ):
        dataclasses.replace(moving_ball(0), times=None).row(MOVING)
    with pytest.raises(DatasetError, match="ball-0: the layout asks for voxels"):
        ball(0).row(dataclasses.replace(LAYOUT, voxel_side=16))
    with pytest.raises(DatasetError, match="ball-1: voxels has shape"):
        seen_ball(1).row(dataclasses.replace(SEEN, voxel_side=16))
    with pytest.raises(DatasetError, match="4089 points exceed the layout's 2048"):
        ball(0).row(dataclasses.replace(LAYOUT, points=BLOCK))
    with pytest.raises(DatasetError, match="uniform_queries has shape"):
        ball(0).row(dataclasses.replace(LAYOUT, uniform_queries=2 * BLOCK))


def test_a_store_of_another_version_is_refused(store: Path) -> None:
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    first = {key: value for key, value in group.attrs["tessera"].items() if key != "checksum"}
    group.attrs["tessera"] = first | {"version": 1}
    finish_dataset(store)
    with pytest.raises(DatasetError, match="dataset version 1, this program reads 4; preprocess again"):
        read_layout(store)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"voxel_side": 12}, "multiple of 8"),
        ({"voxel_side": -8}, "multiple of 8"),
        ({"near_queries": 100}, "near_queries must be a multiple"),
        ({"uniform_queries": -BLOCK}, "uniform_queries must be a multiple"),
        ({"frames": -1}, "not negative"),
        ({"views": 2}, "need a view_size"),
        ({"view_size": 8}, "need a view_size"),
        ({"shapes_per_shard": 0}, "one shape in a shard"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LAYOUT, **values)


def test_layouts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2048"):
        DatasetLayout(shapes=1, categories=("a",), points=1000)
    with pytest.raises(ValueError, match="at least one shape"):
        DatasetLayout(shapes=0, categories=("a",))


def test_a_training_batch_depends_on_seed_step_and_rank_alone(store: Path) -> None:
    first, again = (CropSource(store, "train", CropConfig(), seed=3) for _ in range(2))
    again.batch(0, 2)
    for step, rank in ((5, 0), (5, 1), (6, 0)):
        one, two = first.batch(step, 2, rank), again.batch(step, 2, rank)
        np.testing.assert_array_equal(one.points, two.points)
        np.testing.assert_array_equal(one.distances, two.distances)
    assert not np.array_equal(first.batch(5, 2, 0).points[:50], first.batch(5, 2, 1).points[:50])


def test_points_queries_and_labels_of_a_crop_belong_together(store: Path) -> None:
    """Whatever the turn and scale, the distances of queries are those to the sphere that the crop's points lie on."""
    config = CropConfig(noise=0.0, outliers=0.0)
    source = CropSource(store, "train", config, seed=0)
    checked = 0
    for step in range(12):
        batch = source.batch(step, 1)
        assert ((batch.points >= 0) & (batch.points < batch.grid_shape[0])).all()
        if len(batch.points) < 200 or not len(batch.queries):
            continue
        points = batch.points.astype(np.float64)
        solution, *_ = np.linalg.lstsq(
            np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None
        )
        center = solution[:3]
        radius = np.sqrt(solution[3] + center @ center)
        distance = np.linalg.norm(batch.queries - center, axis=1)
        near = batch.distances < 3  # beyond, what nobody saw is free however far it is
        # The sampler shakes scanned points by up to 0.15 voxel, the fit of a cap by more.
        assert np.median(np.abs(distance - radius - batch.distances)[near]) < 0.2
        clear = near & (np.abs(distance - radius) > 0.6)
        assert ((distance < radius) == (batch.distances < 0))[clear].mean() > 0.999
        known = np.abs(batch.directions).any(axis=1)
        outward = (batch.points[known] - center) / radius
        assert ((outward * batch.directions[known]).sum(axis=1) > 0.9).all()
        checked += 1
    assert checked >= 4


def test_nothing_is_asked_where_a_cut_crop_lacks_context(store: Path) -> None:
    config = CropConfig(whole_share=0.0)
    source = CropSource(store, "train", config, seed=1)
    asked = np.concatenate([source.batch(step, 1).queries for step in range(12)])
    assert len(asked) > 1000
    assert asked.min() > config.context
    assert asked.max() < config.window_grid - config.context


@pytest.mark.parametrize(("share", "signs"), [(0.0, {1}), (0.5, {-1, 1}), (1.0, {-1})])
def test_crops_are_mirrored_as_often_as_asked(store: Path, share: float, signs: set[int]) -> None:
    source = CropSource(store, "train", CropConfig(mirrored_share=share), seed=1)
    rng = np.random.default_rng(2)
    turns = [source._rotation(is_whole, rng) for is_whole in (True, False) for _ in range(20)]
    assert {round(float(np.linalg.det(turn))) for turn in turns} == signs
    for turn in turns:
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)


def test_an_empty_split_says_what_to_do(store: Path) -> None:
    with pytest.raises(DatasetError, match="no shapes in split 'val'"):
        CropSource(store, "val", CropConfig(), seed=0)
