"""Every format by an independent writer, with every scale of colors, order of columns, offset and gap."""

from __future__ import annotations

import itertools
from pathlib import Path

import laspy
import numpy as np
import open3d as o3d
import pytest
import trimesh

from preprocessing.scan_files import open_scan
from tests.preprocessing.scan_files.clouds import COLORS, COUNT, POINTS, packed, pcd, ply, read, rows

OFFSETS = (0.0, 5_000_000.0)
SCALES = {"none": 0.0, "fractions": 1 / 255, "bytes": 1.0, "16 bits": 257.0}
KINDS = {"fractions": ("float", "<f4"), "bytes": ("uchar", "u1"), "16 bits": ("ushort", "<u2")}


def cloud(offset: float, has_gap: bool) -> np.ndarray:
    """The points at an offset; with a gap, one of them is not a number."""
    points = POINTS + np.array([offset, -offset / 10, 0])
    if has_gap:
        points[3] = np.nan
    return points


def check(path: Path, points: np.ndarray, has_colors: bool, digits: float = 1e-6) -> None:
    """Positions to 1e-6 relative, or as many digits as the format has; colors to one step."""
    found = read(path)
    scale = np.nanmax(np.abs(points))
    np.testing.assert_allclose(found.points, points, rtol=0, atol=digits * scale)
    assert open_scan(path).has_colors == has_colors
    if has_colors:
        assert np.abs(found.colors.astype(int) - COLORS).max() <= 1


@pytest.mark.parametrize(
    ("separator", "order", "case", "has_alpha"),
    list(
        itertools.product(
            (" ", ",", ";", "\t"), ("x first", "colors first"), (str.lower, str.title), (False, True)
        )
    ),
)
def test_text_by_hand(separator: str, order: str, case, has_alpha: bool, tmp_path: Path) -> None:
    for offset, (scale, factor), has_gap in itertools.product(OFFSETS, SCALES.items(), (False, True)):
        points, colored = cloud(offset, has_gap), scale != "none"
        parts: list[tuple[list[str], np.ndarray]] = [(["x", "y", "z"], points)]
        if colored:
            shades = COLORS * factor if scale == "fractions" else (COLORS * factor).astype(int)
            channels = [(["red", "green", "blue"], shades)]
            if has_alpha:
                channels.append((["alpha"], np.full(COUNT, shades.max())))
            parts = channels + parts if order == "colors first" else parts + channels
        names = [case(name) for part in parts for name in part[0]]
        text = separator.join(names) + "\n" + rows(*(part[1] for part in parts), separator=separator)
        (tmp_path / "a.txt").write_text(text)
        check(tmp_path / "a.txt", points, colored)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_ply_by_hand(form: str, case, has_alpha: bool, tmp_path: Path) -> None:
    for offset, (scale, factor), has_gap, first in itertools.product(
        OFFSETS, SCALES.items(), (False, True), ("points", "colors")
    ):
        points, colored = cloud(offset, has_gap), scale != "none"
        axes = {axis: ("double", "<f8", points[:, n]) for n, axis in enumerate("xyz")}
        channels = {}
        if colored:
            names = ["red", "green", "blue", *(["alpha"] if has_alpha else [])]
            kind, stored = KINDS[scale]
            shades = np.c_[COLORS * float(factor), np.full(COUNT, 255.0 * factor)]
            shades = shades if scale == "fractions" else np.rint(shades).astype(int)
            channels = {name: (kind, stored, shades[:, n]) for n, name in enumerate(names)}
        columns = axes | channels if first == "points" else channels | axes
        declared = [(kind, case(name)) for name, (kind, _, _) in columns.items()]
        if form == "ascii":
            body = rows(*(values for _, _, values in columns.values())).encode()
        else:
            order = ">" if form == "binary_big_endian" else "<"
            body = packed(**{n: (k.replace("<", order), v) for n, (_, k, v) in columns.items()})
        (tmp_path / "a.ply").write_bytes(ply(declared, body, form=form))
        check(tmp_path / "a.ply", points, colored)


@pytest.mark.parametrize("data", ["ascii", "binary"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_pcd_by_hand(data: str, case, tmp_path: Path) -> None:
    for offset, (scale, factor), has_gap in itertools.product(OFFSETS, SCALES.items(), (False, True)):
        points, colored = cloud(offset, has_gap), scale != "none"
        columns = {axis: ("F", "<f8", points[:, n]) for n, axis in enumerate("xyz")}
        if colored:
            stored = KINDS[scale][1]
            shades = COLORS * factor if scale == "fractions" else (COLORS * factor).astype(int)
            letter = "F" if scale == "fractions" else "U"
            columns |= {
                name: (letter, stored, shades[:, n]) for n, name in enumerate(("red", "green", "blue"))
            }
        body = packed(**{name: (stored, values) for name, (_, stored, values) in columns.items()})
        if data == "ascii":
            body = rows(*(values for _, _, values in columns.values())).encode()
        sizes = " ".join(str(np.dtype(stored).itemsize) for _, stored, _ in columns.values())
        letters = " ".join(letter for letter, _, _ in columns.values())
        (tmp_path / "a.pcd").write_bytes(pcd(" ".join(map(case, columns)), sizes, letters, body, data))
        check(tmp_path / "a.pcd", points, colored)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_numpy(is_compressed: bool, tmp_path: Path) -> None:
    save = np.savez_compressed if is_compressed else np.savez
    for offset, (scale, factor), has_gap, has_alpha, layout in itertools.product(
        OFFSETS, SCALES.items(), (False, True), (False, True), ("C", "F")
    ):
        points, arrays = cloud(offset, has_gap), {}
        if scale != "none":
            shades = np.c_[COLORS, np.full(COUNT, 255)][:, : 4 if has_alpha else 3] * float(factor)
            kind = {"fractions": "<f4", "bytes": "u1", "16 bits": "<u2"}[scale]
            arrays["colors"] = np.asarray(shades, kind, order=layout)
        save(tmp_path / "a.npz", points=np.asarray(points, order=layout), **arrays)
        check(tmp_path / "a.npz", points, scale != "none", 0.0)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("kind", [2, 3, 7, 8])
def test_laspy(suffix: str, kind: int, tmp_path: Path) -> None:
    for offset, factor in itertools.product(OFFSETS, (0, 1, 257)):
        points = cloud(offset, False)
        header = laspy.LasHeader(version="1.4" if kind > 5 else "1.2", point_format=kind)
        header.scales, header.offsets = [1e-6] * 3, points[0]
        data = laspy.LasData(header)
        data.x, data.y, data.z = points.T
        data.red, data.green, data.blue = (COLORS.astype(np.uint16) * factor).T
        data.write(tmp_path / f"a{suffix}")
        check(tmp_path / f"a{suffix}", points, factor > 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ply", {"write_ascii": True}),
        ("a.ply", {}),
        ("a.pcd", {"write_ascii": True}),
        ("a.pcd", {}),
        ("a.pcd", {"compressed": True}),
        ("a.xyz", {}),
        ("a.xyzrgb", {}),
        ("a.pts", {}),
    ],
    ids=str,
)
def test_open3d(name: str, options: dict[str, bool], tmp_path: Path) -> None:
    for offset, colored in itertools.product((0.0, 1000.0), (False, True)):
        if name == "a.xyzrgb" and not colored:
            continue
        points = cloud(offset, False)
        made = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
        if colored:
            made.colors = o3d.utility.Vector3dVector(COLORS / 255.0)
        assert o3d.io.write_point_cloud(str(tmp_path / name), made, **options)
        # Open3D writes six digits of text, and single precision into PCD.
        digits = 5e-6 if options == {"write_ascii": True} else 1e-6
        check(tmp_path / name, points, colored and name != "a.xyz", digits)


@pytest.mark.parametrize("suffix", [".ply", ".xyz"])
def test_trimesh(suffix: str, tmp_path: Path) -> None:
    for colored in (False, True):
        alpha = np.full((COUNT, 1), 255, np.uint8)
        made = trimesh.PointCloud(POINTS, np.c_[COLORS, alpha] if colored else None)
        made.export(tmp_path / f"a{suffix}")
        check(tmp_path / f"a{suffix}", POINTS, colored, 1e-6)
