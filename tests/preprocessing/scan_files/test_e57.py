"""E57, where its optional package is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.errors import ScanError
from preprocessing.scan_files import open_scan

pye57 = pytest.importorskip("pye57", reason="the optional package pye57 is not installed")
RNG = np.random.default_rng(0)
POINTS, COLORS = RNG.normal(0, 3, (500, 3)), RNG.integers(0, 256, (500, 3)).astype(np.uint8)


def write(path: Path, colored: list[bool]) -> None:
    file = pye57.E57(str(path), mode="w")
    for has_colors in colored:
        data = {f"cartesian{axis}": POINTS[:, column] for column, axis in enumerate("XYZ")}
        if has_colors:
            data |= {
                f"color{name}": COLORS[:, column] for column, name in enumerate(("Red", "Green", "Blue"))
            }
        file.write_scan_raw(data, rotation=np.array([1.0, 0, 0, 0]), translation=np.array([5e6, 0, 1.0]))
    file.close()


def test_positions_come_in_the_common_frame(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [True, True])
    reader = open_scan(tmp_path / "a.e57", 200)
    chunks = list(reader.chunks())
    assert (reader.count, reader.has_colors) == (1000, True)
    assert [len(chunk.points) for chunk in chunks] == [200, 200, 100] * 2
    points = np.concatenate([chunk.points for chunk in chunks])
    np.testing.assert_allclose(points, np.tile(POINTS + np.array([5e6, 0, 1]), (2, 1)), rtol=0, atol=1e-6)
    colors = np.concatenate([chunk.colors for chunk in chunks if chunk.colors is not None])
    np.testing.assert_array_equal(colors, np.tile(COLORS, (2, 1)))


def test_colours_of_some_positions_only_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [True, False])
    reader = open_scan(tmp_path / "a.e57")
    assert not reader.has_colors
    assert all(chunk.colors is None for chunk in reader.chunks())


def test_a_cut_file_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.e57", [True])
    data = (tmp_path / "a.e57").read_bytes()
    for cut in (1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "a.e57").write_bytes(data[:cut])
        with pytest.raises(ScanError, match="not a readable E57") as error:
            open_scan(tmp_path / "a.e57")
        assert "\n" not in str(error.value)
