"""Text clouds: what people's exports look like, and rows that must not shift the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk, open_scan


def read(path: Path, content: str, chunk: int = 1000) -> list[ScanChunk]:
    path.write_text(content, encoding="utf-8")
    return list(open_scan(path, chunk).chunks())


@pytest.mark.parametrize(
    "content",
    [
        "1.5 2.5 3.5\n4 5 6\n",
        "1.5,2.5,3.5\r\n4,5,6\r\n",
        "1.5, 2.5, 3.5,\n4, 5, 6,\n",
        "1,5;2,5;3,5\n4,0;5,0;6,0\n",
        "1,5 2,5 3,5\n4,0 5,0 6,0\n",
        "\ufeff1.5\t2.5\t3.5\n\n# a note\n4\t5\t6",
        '"x";"y";"z"\n1.5;2.5;3.5\n4;5;6\n',
        "// made by a scanner\nX Y Z\n1.5 2.5 3.5\n; note\n4 5 6\n",
        "2\n1.5 2.5 3.5\n4 5 6\n",
    ],
)
def test_two_points_in_many_dresses(content: str, tmp_path: Path) -> None:
    (found,) = read(tmp_path / "a.csv", content)
    np.testing.assert_array_equal(found.points, [[1.5, 2.5, 3.5], [4, 5, 6]])
    assert found.colors is None
    assert found.normals is None


@pytest.mark.parametrize(
    ("row", "color", "normal"),
    [
        ("1 2 3 10 20 30", (10, 20, 30), None),
        ("1 2 3 0.5 0.25 1.0", (128, 64, 255), None),
        ("1 2 3 0.0 0.6 0.8", None, (0, 0.6, 0.8)),
        ("1 2 3 0 0 1", None, (0, 0, 1)),
        ("1 2 3 17.5", None, None),
        ("1 2 3 -120 10 20 30", (10, 20, 30), None),
        ("1 2 3 10 20 30 0.0 0.6 0.8", (10, 20, 30), (0, 0.6, 0.8)),
        ("1 2 3 0.0 0.6 0.8 10 20 30", (10, 20, 30), (0, 0.6, 0.8)),
        ("1 2 3 0.0 0.6 0.8 9.5", None, (0, 0.6, 0.8)),
        ("1 2 3 900 800 700", None, None),
    ],
)
def test_columns_without_names_are_told_by_their_values(
    row: str, color: tuple[int, ...] | None, normal: tuple[float, ...] | None, tmp_path: Path
) -> None:
    (found,) = read(tmp_path / "a.xyz", f"{row}\n{row}\n")
    np.testing.assert_array_equal(found.points, [[1, 2, 3]] * 2)
    assert (found.colors is None) == (color is None)
    assert (found.normals is None) == (normal is None)
    if color is not None:
        np.testing.assert_array_equal(found.colors, [color] * 2)
    if normal is not None:
        np.testing.assert_allclose(found.normals, [normal] * 2, rtol=1e-7)


def test_a_dark_chunk_keeps_the_scale_of_the_file(tmp_path: Path) -> None:
    chunks = read(tmp_path / "a.xyz", "1 2 3 200 0 0\n4 5 6 1 0 1\n", chunk=1)
    assert [chunk.colors.tolist() for chunk in chunks if chunk.colors is not None] == [
        [[200, 0, 0]],
        [[1, 0, 1]],
    ]


def test_other_columns_do_not_scale_the_colors(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "a.csv", "x,y,z,red,green,blue,intensity\n1,2,3,0.5,0.25,1.0,50\n")
    np.testing.assert_array_equal(found.colors, [[128, 64, 255]])


def test_colors_of_16_bits_by_name(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "a.csv", "x,y,z,r,g,b\n1,2,3,65535,256,0\n")
    np.testing.assert_array_equal(found.colors, [[255, 1, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3\n1 2 3 4\n5 6\n7 8 9\n", "line 2 has not 3 numbers"),  # twelve numbers, but not four points
        ("1 2 3\n4 5 6\n7 8", "line 3 has not 3 numbers"),
        ("1 2 3\n4 x 6\n", "line 2 has not 3 numbers"),
        ("1,2,3,4\n5,,6,7\n", "line 2 has not 4 numbers"),
        ("scan 1 2\n1 2 3\n", "line 1 is not x y z"),
        ("1 2\n3 4\n", "line 1 is not x y z"),
        ("3\n1 2 3\n4 5 6\n", "promises 3 points, the file holds 2"),
        ("# only\n# comments\n", "holds no points"),
        ("PK\x03\x04\x00\x01 binary \x00", "holds no points"),
    ],
)
def test_what_is_no_cloud_names_the_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=message) as error:
        read(tmp_path / "a.xyz", content)
    assert "a.xyz" in str(error.value)


def test_a_damaged_line_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    lines = ["# header", *["1 2 3"] * 250, "1 2", *["1 2 3"] * 10]
    with pytest.raises(ScanError, match="line 252 has"):
        read(tmp_path / "a.xyz", "\n".join(lines), chunk=100)
