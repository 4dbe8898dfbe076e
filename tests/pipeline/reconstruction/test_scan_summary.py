"""The first pass over a scan: several files as one, what is left out, what looks wrong, and what is no surface."""

from __future__ import annotations

import itertools
from pathlib import Path

import laspy
import numpy as np
import pytest
import trimesh

from pipeline.description import describe
from pipeline.reconstruction.ingest import BucketContents, bucket_points, read_points
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.scan_summary import (
    check_voxel_size,
    finite_chunks,
    guess_unit,
    scan_granularity,
    summarize_scan,
)
from pipeline.reconstruction.spacing import Granularity, measure_granularity
from pipeline.reconstruction.store import RunStore
from pipeline.scan_reading import ScanSet, scan_set
from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanOptions, write_scan_ply
from preprocessing.surface_sampling import sample_surface

RNG = np.random.default_rng(2)
DIRECTIONS = RNG.normal(size=(600, 3))
BALL = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
MAP = np.array([694_386.0, 5_155_487.0, 381.0])


def scan(path: Path, points: np.ndarray, **options: object) -> ScanSet:
    write_scan_ply(path, points)
    return scan_set(path, ScanOptions(**options))  # type: ignore[arg-type]


def test_zeros_among_map_coordinates_are_left_out_with_one_line(tmp_path: Path) -> None:
    points = np.concatenate([BALL + MAP, np.zeros((1, 3))])
    given = scan(tmp_path / "a.ply", points)
    summary = summarize_scan(given, drop_invalid=False)
    assert (summary.points, summary.drop_origin) == (600, True)
    np.testing.assert_array_equal(summary.low, (BALL + MAP).min(axis=0))
    assert summary.notes == ("1 points left out: exactly at (0, 0, 0), where nothing came back",)
    left = np.concatenate([chunk.points for chunk, _ in finite_chunks(given, drop_origin=True)])
    np.testing.assert_array_equal(left, BALL + MAP)


@pytest.mark.parametrize(("zeros", "is_dropped"), [(1, False), (8, False), (50, True)])
def test_one_point_at_the_origin_of_a_cloud_around_it_is_kept(
    zeros: int, is_dropped: bool, tmp_path: Path
) -> None:
    summary = summarize_scan(
        scan(tmp_path / "a.ply", np.concatenate([BALL, np.zeros((zeros, 3))])), drop_invalid=False
    )
    assert summary.drop_origin == is_dropped
    assert summary.points == 600 + zeros * (not is_dropped)


def test_several_files_and_patterns_are_one_scan(tmp_path: Path) -> None:
    for number, part in enumerate(np.array_split(BALL, 3)):
        write_scan_ply(tmp_path / f"part{number}.ply", part)
    given = scan_set([str(tmp_path / "part*.ply"), tmp_path / "part1.ply"])
    assert [file.name for file in given.files] == ["part0.ply", "part1.ply", "part2.ply"]
    assert given.name == "part0.ply and 2 more files"
    summary = summarize_scan(given, drop_invalid=False)
    assert summary.points == 600
    assert [file.points for file in summary.files] == [200, 200, 200]
    np.testing.assert_array_equal(summary.low, BALL.min(axis=0))
    assert summary.notes == ()
    with pytest.raises(ScanError, match=r"nothing\*\.laz: no file matches"):
        scan_set(str(tmp_path / "nothing*.laz"))
    with pytest.raises(ScanError, match=r"b\.ply: no such file"):
        scan_set([tmp_path / "part0.ply", tmp_path / "b.ply"])


def test_files_of_another_place_or_unit_are_noticed(tmp_path: Path) -> None:
    write_scan_ply(tmp_path / "a.ply", BALL)
    write_scan_ply(tmp_path / "b.ply", BALL + MAP)
    write_scan_ply(tmp_path / "c.ply", BALL * 1000)
    far = summarize_scan(scan_set([tmp_path / "a.ply", tmp_path / "b.ply"]), drop_invalid=False)
    assert any("from the other files; check that all are in one frame" in note for note in far.notes)
    unit = summarize_scan(scan_set([tmp_path / "a.ply", tmp_path / "c.ply"]), drop_invalid=False)
    assert any("check that all are in one unit" in note for note in unit.notes)


def test_colors_of_some_files_only_are_left_out_and_told(tmp_path: Path) -> None:
    write_scan_ply(tmp_path / "a.ply", BALL)
    write_scan_ply(tmp_path / "b.ply", BALL, colors=np.full((600, 3), 9, np.uint8))
    summary = summarize_scan(scan_set([tmp_path / "b.ply", tmp_path / "a.ply"]), drop_invalid=False)
    assert not summary.has_colors
    assert summary.notes == ("colors are left out: not all files have them",)


def las(path: Path, epsg: int, **columns: np.ndarray) -> None:
    cloud = laspy.create(point_format=0)
    cloud.header.scales = [1e-6] * 3
    cloud.x, cloud.y, cloud.z = BALL.T
    for name, values in columns.items():
        setattr(cloud, name, values)
    keys = np.array([1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, epsg], "<u2").tobytes()
    cloud.header.vlrs.append(laspy.VLR("LASF_Projection", 34735, "", keys))
    cloud.write(path)


def test_reference_systems_are_carried_and_may_not_be_mixed(tmp_path: Path) -> None:
    las(tmp_path / "a.las", 32632)
    las(tmp_path / "b.las", 32633)
    assert summarize_scan(scan_set(tmp_path / "a.las"), drop_invalid=False).crs == "EPSG:32632"
    turned = scan_set(tmp_path / "a.las", ScanOptions(unit="ft"))
    assert summarize_scan(turned, drop_invalid=False).crs is None
    with pytest.raises(ScanError, match="different coordinate reference systems"):
        summarize_scan(scan_set([tmp_path / "a.las", tmp_path / "b.las"]), drop_invalid=False)


def test_noise_is_left_out_with_one_line_and_classes_are_counted(tmp_path: Path) -> None:
    las(tmp_path / "a.las", 32632, classification=np.repeat([2, 6, 7], 200))
    summary = summarize_scan(scan_set(tmp_path / "a.las"), drop_invalid=False)
    assert (summary.points, summary.classes) == (400, {2: 200, 6: 200})
    assert summary.notes == ("200 points left out: of class 7 (noise)",)
    las(tmp_path / "b.las", 32632, classification=np.full(600, 18))
    with pytest.raises(ScanError, match=r"holds no points.*600 were of class 18.*--keep-classes"):
        summarize_scan(scan_set(tmp_path / "b.las"), drop_invalid=False)


def test_repeated_points_do_not_change_the_spacing(tmp_path: Path) -> None:
    spacings = []
    for name, points in (
        ("a.ply", BALL),
        ("b.ply", np.tile(BALL, (8, 1))),
        ("c.ply", np.repeat(BALL, 8, axis=0)),
    ):
        given = scan(tmp_path / name, points)
        spacings.append(scan_granularity(given, summarize_scan(given, drop_invalid=False)).spacing)
    # Looked at in other places of the ball: a few thousand probes tell the median to half a percent.
    assert spacings == pytest.approx([spacings[0]] * 3, rel=0.02)


@pytest.mark.parametrize("cloud", ["ball", "grid"])
def test_points_that_other_files_repeat_do_not_change_the_default_voxel_size(
    cloud: str, tmp_path: Path
) -> None:
    steps = np.arange(25) / 8.0  # many neighbors of a grid lie at one distance without being one point
    grid = np.stack(np.meshgrid(steps, steps, [0.0, 1.0]), axis=-1).reshape(-1, 3)
    points = BALL if cloud == "ball" else grid
    for number in range(8):
        write_scan_ply(tmp_path / f"{number}.ply", points[RNG.permutation(len(points))])
    once, all_eight = (scan_set(files) for files in (tmp_path / "0.ply", sorted(tmp_path.glob("*.ply"))))
    sizes = [
        scan_granularity(given, summarize_scan(given, drop_invalid=False)).voxel_size
        for given in (once, all_eight)
    ]
    assert sizes[0] == sizes[1]
    spacing = measure_granularity([points[::2], points[1::2], points[::3]], points).spacing
    neighbors = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)[:, 8]
    assert spacing == pytest.approx(float(np.median(neighbors)) * np.sqrt(np.pi / 8))


def corner(count: int, noise: float) -> np.ndarray:
    """Points of three square walls of 4 m that meet in a corner, moved along their normals at random."""
    rng = np.random.default_rng(2)
    wall = rng.integers(0, 3, count)
    points = rng.uniform(0, 4, (count, 3))
    points[np.arange(count), wall] = noise * rng.normal(size=count)
    return points


@pytest.mark.parametrize("count", [20_000, 80_000])
@pytest.mark.parametrize("noise_per_spacing", [0.0, 0.2, 1.0, 4.0])
def test_spacing_and_noise_of_a_room_are_found(count: int, noise_per_spacing: float) -> None:
    spacing = np.sqrt(48 / count)
    points = corner(count, noise_per_spacing * spacing)
    found = measure_granularity(np.array_split(points, 3), points[::5][:2000])
    assert found.noise == pytest.approx(noise_per_spacing * spacing, rel=0.2, abs=1e-9)
    if noise_per_spacing < 0.5:  # with more, the nearest points are no neighbors along the wall
        assert found.spacing == pytest.approx(spacing, rel=0.06)


def table(count: int, noise: float) -> np.ndarray:
    """Points of a thin board of 1 x 0.6 x 0.03 m on four legs, on all sides, moved at random."""
    boxes = [trimesh.creation.box((1, 0.6, 0.03))]
    for x, y in itertools.product((-0.45, 0.45), (-0.25, 0.25)):
        leg = trimesh.creation.box((0.05, 0.05, 0.7))
        boxes.append(leg.apply_translation((x, y, -0.37)))
    mesh = trimesh.util.concatenate(boxes)
    rng = np.random.default_rng(4)
    points, _ = sample_surface(mesh.vertices, mesh.faces, count, rng)
    return points + noise * rng.normal(size=points.shape)


@pytest.mark.parametrize(("count", "noise"), [(30_000, 0.0), (30_000, 0.004), (300_000, 0.004)])
def test_the_thickness_of_a_board_is_not_taken_for_noise(count: int, noise: float) -> None:
    points = table(count, noise)
    found = measure_granularity([points], points[: min(count, 4096)])
    assert found.noise == pytest.approx(noise, rel=0.25, abs=1e-9)


def test_a_board_thinner_than_its_spacing_does_not_coarsen_the_voxel() -> None:
    found = measure_granularity([table(3_000, 0.0)], table(3_000, 0.0))
    assert 1.8 * found.spacing * 0.97 < found.voxel_size < 4 * found.spacing


def test_the_curvature_of_a_small_ball_is_not_taken_for_noise() -> None:
    points = np.random.default_rng(5).normal(size=(3_000, 3))
    points /= 2 * np.linalg.norm(points, axis=1, keepdims=True)
    found = measure_granularity([points], points)
    assert found.voxel_size == pytest.approx(1.8 * np.sqrt(np.pi / 3_000), rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_the_curvature_of_a_thin_ring_is_not_taken_for_noise(noise: float) -> None:
    rng = np.random.default_rng(6)
    ring, tube = rng.uniform(0, 2 * np.pi, (2, 3_000))
    outwards = np.stack([np.cos(tube) * np.cos(ring), np.cos(tube) * np.sin(ring), np.sin(tube)], axis=1)
    middle = 0.35 * np.stack([np.cos(ring), np.sin(ring), np.zeros_like(ring)], axis=1)
    points = middle + (0.15 + noise * rng.normal(size=(len(ring), 1))) * outwards
    # Planes would be off by 0.006 here: points are 0.03 apart, on a tube of radius 0.15.
    assert measure_granularity([points], points).noise == pytest.approx(noise, rel=0.15, abs=5e-4)


def test_a_denser_scan_of_the_same_noise_never_gets_a_voxel_below_the_noise(tmp_path: Path) -> None:
    noise = 0.02
    sizes = []
    for count in (3_000, 30_000, 300_000):
        given = scan(tmp_path / f"{count}.ply", corner(count, noise))
        sizes.append(scan_granularity(given, summarize_scan(given, drop_invalid=False)).voxel_size)
    assert sizes[0] > sizes[1] == pytest.approx(sizes[2], rel=0.05)  # of two, the noise decides
    assert min(sizes) > 4.5 * noise


def test_where_no_patch_is_flat_nothing_is_said_of_the_noise() -> None:
    points = np.random.default_rng(3).uniform(0, 1, (20_000, 3))
    assert measure_granularity([points], points[:1000]).noise == 0


def test_a_voxel_finer_than_the_scan_is_told() -> None:
    found = Granularity(spacing=0.02, noise=0.01)
    assert [found.supports(size) for size in (0.019, 0.024, 0.026)] == [False, False, True]
    assert Granularity(0.02, 0.005).voxel_size == 0.036 and Granularity(0.02, 0.03).voxel_size == 0.15


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_points_on_a_line_are_no_surface(noise: float, tmp_path: Path) -> None:
    along = np.linspace(0, 10, 5000)[:, None] * [0.6, 0.8, 0.0] + noise * RNG.normal(size=(5000, 3))
    given = scan(tmp_path / "a.ply", along)
    summary = summarize_scan(given, drop_invalid=False)
    with pytest.raises(ScanError, match=r"a\.ply: its points lie on a line .*no surface"):
        check_voxel_size(given, summary, scan_granularity(given, summary).voxel_size)
    plane = scan(tmp_path / "b.ply", np.c_[RNG.random((5000, 2)), np.zeros(5000)])
    summary = summarize_scan(plane, drop_invalid=False)
    assert check_voxel_size(plane, summary, scan_granularity(plane, summary).voxel_size) == []


def test_millimeters_are_guessed_and_given_units_help(tmp_path: Path) -> None:
    given = scan(tmp_path / "a.ply", BALL * 3000)
    summary = summarize_scan(given, drop_invalid=False)
    (warning,) = check_voxel_size(given, summary, scan_granularity(given, summary).voxel_size)
    assert "pass --unit mm" in warning
    given = scan(tmp_path / "a.ply", BALL * 3000, unit="mm")
    summary = summarize_scan(given, drop_invalid=False)
    np.testing.assert_allclose(summary.high, 3 * BALL.max(axis=0))
    assert check_voxel_size(given, summary, scan_granularity(given, summary).voxel_size) == []
    assert [guess_unit(size) for size in (0.05, 30.0, 1e9)] == ["m", "mm", None]


def test_feet_of_the_reference_system_are_not_guessed_to_be_millimeters(tmp_path: Path) -> None:
    cloud = laspy.create(point_format=6, file_version="1.4")
    cloud.x, cloud.y, cloud.z = (BALL * 500).T
    wkt = 'PROJCS["x",GEOGCS["y"],UNIT["foot",0.3048]]'
    cloud.header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "", wkt.encode() + b"\0"))
    cloud.write(tmp_path / "a.las")
    told = "\n".join(describe(tmp_path / "a.las", ScanOptions()))
    assert "unit, by the reference system: ft" in told
    assert "pass --unit ft" in told
    assert "mm" not in told.replace("a.las", "")


def test_one_side_a_thousand_times_the_others_is_told(tmp_path: Path) -> None:
    summary = summarize_scan(scan(tmp_path / "a.ply", BALL * [1, 1, 5000]), drop_invalid=False)
    assert "its z side of" in summary.notes[0]


PLAN = ScenePlan(
    origin=(-2.0, -2.0, -2.0),
    voxel_size=0.1,
    cells_per_voxel=2,
    tile_voxels=(20, 20, 20),
    grid=(2, 2, 2),
    halo_voxels=24,
    blend_voxels=4,
)


@pytest.mark.parametrize("told", ["stations", "normals", None])
def test_directions_are_stored_in_the_order_of_the_points(told: str | None, tmp_path: Path) -> None:
    station = np.array([5.0, 6.0, 7.0])
    write_scan_ply(tmp_path / "a.ply", BALL, 3 * BALL if told == "normals" else None)
    options = ScanOptions(stations=(tuple(station.tolist()),)) if told == "stations" else ScanOptions()
    given = scan_set(tmp_path / "a.ply", options)
    summary = summarize_scan(given, drop_invalid=False)
    assert summary.sides == told
    store = RunStore(str(tmp_path / "run"))
    bucket_points(given, (PLAN,), store, BucketContents(False, summary.sides))
    found = read_points(store, list(range(8)))
    assert len(found.positions) == 600
    if told is None:
        assert not found.directions.any()
        return
    towards = found.positions if told == "normals" else station - found.positions
    np.testing.assert_allclose(
        found.directions, towards / np.linalg.norm(towards, axis=1, keepdims=True), atol=1e-6
    )
    assert found.directions.dtype == np.float32
