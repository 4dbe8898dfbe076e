"""E57 written by libE57 itself, node by node, as the programs of scanners do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.errors import ScanError
from preprocessing.scan_files import open_scan
from tests.preprocessing.scan_files.clouds import COLORS, COUNT, NORMALS, POINTS, read, refusal

pye57 = pytest.importorskip("pye57", reason="the package pye57 is not installed")
from pye57 import libe57  # noqa: E402

TURN = np.array([0.9238795325, 0.0, 0.0, 0.3826834324])  # 45 degrees about z, as a quaternion w x y z
MATRIX = np.array([[0.5**0.5, -(0.5**0.5), 0.0], [0.5**0.5, 0.5**0.5, 0.0], [0.0, 0.0, 1.0]])
STATION = np.array([5e6, -3.0, 1.5])


def column(file: object, kind: str) -> object:
    """The node that declares a column: a real number, a whole number, or a scaled one."""
    if kind == "double":
        return libe57.FloatNode(file, 0.0, libe57.E57_DOUBLE)
    if kind == "single":
        return libe57.FloatNode(file, 0.0, libe57.E57_SINGLE)
    if kind == "scaled":
        return libe57.ScaledIntegerNode(file, 0, -(2**40), 2**40, 1e-6, 0.0)
    return libe57.IntegerNode(file, 0, 0, int(kind))


def write(
    path: Path,
    positions: list[dict[str, tuple[str, np.ndarray]]],
    pose: str = "whole",
) -> None:
    """A file of scan positions, each of columns by name: (kind, values)."""
    file = pye57.E57(str(path), mode="w")
    image = file.image_file
    image.extensionsAdd("nor", "http://www.libe57.org/E57_NOR_surface_normals.txt")
    for columns in positions:
        scan, prototype = libe57.StructureNode(image), libe57.StructureNode(image)
        scan.set("guid", libe57.StringNode(image, "{1}"))
        if pose != "none":
            node, place, turn = (libe57.StructureNode(image) for _ in range(3))
            scan.set("pose", node)
            for name, value in zip("xyz", STATION, strict=True):
                place.set(name, libe57.FloatNode(image, float(value)))
            for name, value in zip("wxyz", TURN, strict=True):
                turn.set(name, libe57.FloatNode(image, float(value)))
            if pose == "whole":
                node.set("rotation", turn)
            node.set("translation", place)
        for name, (kind, _) in columns.items():
            prototype.set(name, column(image, kind))
        points = libe57.CompressedVectorNode(image, prototype, libe57.VectorNode(image, True))
        scan.set("points", points)
        file.data3d.append(scan)
        buffers = libe57.VectorSourceDestBuffer()
        arrays = [np.ascontiguousarray(values, np.float64) for _, values in columns.values()]
        for name, values in zip(columns, arrays, strict=True):
            buffers.append(libe57.SourceDestBuffer(image, name, values, len(values), True, True))
        writer = points.writer(buffers)
        if len(arrays[0]):
            writer.write(len(arrays[0]))
        writer.close()
    file.close()


def cartesian(points: np.ndarray = POINTS, kind: str = "double") -> dict[str, tuple[str, np.ndarray]]:
    return {f"cartesian{axis}": (kind, points[:, number]) for number, axis in enumerate("XYZ")}


def colors(kind: str, values: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    return {f"color{name}": (kind, values[:, n]) for n, name in enumerate(("Red", "Green", "Blue"))}


def test_positions_come_in_the_common_frame_with_their_stations(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [cartesian() | colors("255", COLORS)] * 2)
    reader = open_scan(tmp_path / "a.e57", 100)
    assert (reader.count, reader.has_colors) == (2 * COUNT, True)
    assert [len(chunk.points) for chunk in reader.chunks()] == [100, 100, 40] * 2
    np.testing.assert_allclose(reader.stations, [STATION] * 2)
    found = read(tmp_path / "a.e57")
    expected = np.tile(POINTS @ MATRIX.T + STATION, (2, 1))
    np.testing.assert_allclose(found.points, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.colors, np.tile(COLORS, (2, 1)))
    towards = (STATION - expected) / np.linalg.norm(STATION - expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found.directions, towards, atol=1e-6)


@pytest.mark.parametrize("kind", ["double", "single", "scaled"])
@pytest.mark.parametrize("pose", ["none", "only the place"])
def test_coordinates_of_any_kind_and_half_a_pose(kind: str, pose: str, tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [cartesian(kind=kind)], pose)
    found = read(tmp_path / "a.e57")
    shift = np.zeros(3) if pose == "none" else STATION
    np.testing.assert_allclose(found.points - shift, POINTS, rtol=1e-6, atol=2e-6)
    assert (found.directions is None) == (pose == "none")


def test_spherical_coordinates(tmp_path: Path) -> None:
    distance = np.linalg.norm(POINTS, axis=1)
    azimuth, elevation = np.arctan2(POINTS[:, 1], POINTS[:, 0]), np.arcsin(POINTS[:, 2] / distance)
    columns = {
        "sphericalRange": distance,
        "sphericalAzimuth": azimuth - 2 * np.pi,
        "sphericalElevation": elevation,
    }
    write(tmp_path / "a.e57", [{name: ("double", values) for name, values in columns.items()}], "none")
    np.testing.assert_allclose(read(tmp_path / "a.e57").points, POINTS, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("255", 1.0), ("65535", 257.0), ("65535", 1.0), ("single", 1 / 255), ("single", 1.0), ("double", 257.0)],
)
def test_colors_of_any_scale(kind: str, scale: float, tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [cartesian() | colors(kind, COLORS * scale)])
    found = read(tmp_path / "a.e57")
    assert found.colors is not None
    assert np.abs(found.colors.astype(int) - COLORS).max() <= 1


@pytest.mark.parametrize(
    ("kind", "has_gap"),
    [("double", False), ("double", True), ("single", False), ("single", True), ("scaled", False)],
)
@pytest.mark.parametrize("order", ["points first", "colors first"])
def test_every_scale_offset_order_and_gap(kind: str, has_gap: bool, order: str, tmp_path: Path) -> None:
    for offset in (0.0, 500_000.0):  # as far as the scaled whole numbers reach
        points = POINTS + np.array([offset, -offset / 10, 0])
        if has_gap:
            points[3] = np.nan
        for shade, scale in (
            ("255", 0.0),
            ("255", 1.0),
            ("65535", 257.0),
            ("single", 1 / 255),
            ("single", 1.0),
        ):
            axes, channels = cartesian(points, kind), colors(shade, COLORS * scale)
            columns = axes | channels if order == "points first" else channels | axes
            write(tmp_path / "a.e57", [columns], "none")
            found = read(tmp_path / "a.e57")
            np.testing.assert_allclose(found.points, points, rtol=1e-6, atol=1e-6)
            assert (found.colors is None) == (scale == 0)
            if found.colors is not None:
                assert np.abs(found.colors.astype(int) - COLORS).max() <= 1


def test_dark_colors_of_whole_numbers_are_no_fractions(tmp_path: Path) -> None:
    dark = (COLORS > 127).astype(int)
    for kind, scale in (("255", 1), ("single", 255)):
        write(tmp_path / "a.e57", [cartesian() | colors(kind, dark)])
        np.testing.assert_array_equal(read(tmp_path / "a.e57").colors, dark * scale)


@pytest.mark.parametrize(
    "positions",
    [
        [cartesian() | colors("255", COLORS), cartesian()],
        [cartesian() | {"colorRed": ("255", COLORS[:, 0])}],
        [cartesian() | colors("255", 0 * COLORS)],
    ],
    ids=["of one position only", "of one channel only", "all zero"],
)
def test_colors_that_are_not_whole_are_left_out(
    positions: list[dict[str, tuple[str, np.ndarray]]], tmp_path: Path
) -> None:
    write(tmp_path / "a.e57", positions)
    assert not open_scan(tmp_path / "a.e57").has_colors
    assert read(tmp_path / "a.e57").colors is None


def test_normals_are_turned_with_the_position(tmp_path: Path) -> None:
    normals = {f"nor:normal{axis}": ("double", NORMALS[:, number]) for number, axis in enumerate("XYZ")}
    write(tmp_path / "a.e57", [cartesian() | normals])
    np.testing.assert_allclose(read(tmp_path / "a.e57").normals, NORMALS @ MATRIX.T, atol=1e-6)


def test_invalid_points_are_left_out_and_counted(tmp_path: Path) -> None:
    points, state = POINTS.copy(), np.zeros(COUNT)
    state[:3], state[3:5] = 1, 2
    points[10:14] = 0  # as some write where nothing came back
    write(tmp_path / "a.e57", [cartesian(points) | {"cartesianInvalidState": ("2", state)}])
    found = read(tmp_path / "a.e57")
    kept = np.r_[5:10, 14:COUNT]
    np.testing.assert_allclose(found.points, POINTS[kept] @ MATRIX.T + STATION, atol=1e-6)
    assert found.left_out == {"marked as invalid": 5, "without a return, (0, 0, 0)": 4}


def test_a_position_without_points_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [cartesian(np.zeros((0, 3))), cartesian()])
    assert len(read(tmp_path / "a.e57").points) == COUNT


def test_a_position_without_coordinates_names_its_fields(tmp_path: Path) -> None:
    write(
        tmp_path / "a.e57", [{"cartesianX": ("double", POINTS[:, 0]), "intensity": ("single", POINTS[:, 1])}]
    )
    assert "has no coordinates but cartesianX, intensity" in refusal(tmp_path / "a.e57")


def test_a_cut_file_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [cartesian()])
    data = (tmp_path / "a.e57").read_bytes()
    for cut in (1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "a.e57").write_bytes(data[:cut])
        with pytest.raises(ScanError, match="not a readable E57") as error:
            open_scan(tmp_path / "a.e57")
        assert "\n" not in str(error.value)


def test_a_damaged_page_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [cartesian()])
    data = bytearray((tmp_path / "a.e57").read_bytes())
    data[600] ^= 255
    (tmp_path / "a.e57").write_bytes(data)
    assert "damaged" in refusal(tmp_path / "a.e57")
