from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from foundation.atomic_file import appearing
from preprocessing.errors import GeometryError
from preprocessing.meshes.files import open_mesh_writer, write_mesh
from preprocessing.scan_files import write_scan_ply

POINTS = np.random.default_rng(1).normal(size=(9, 3))
FACES = np.array([[0, 1, 2]])


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with appearing(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("a.txt", "new")]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "a") as partial:
        partial.write_text("half of the new")
        assert (tmp_path / "a").read_text() == "old"
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.parametrize("write", [
    lambda path: write_scan_ply(path, POINTS),
    lambda path: write_mesh(path, POINTS, FACES),
], ids=["scan", "mesh"])  # fmt: skip
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_written_files_have_the_user_s_permissions_and_no_neighbors(
    write, umask: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "a.ply")
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
    assert (tmp_path / "a.ply").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("write", [
    lambda path: write_scan_ply(path, POINTS),
    lambda path: write_mesh(path, POINTS, FACES),
], ids=["scan", "mesh"])  # fmt: skip
def test_a_place_that_cannot_be_written_is_named(write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(GeometryError, match=r"a\.ply: cannot be written"):
        write(tmp_path / "file" / "a.ply")


def test_two_writers_of_one_mesh_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.stl"
    with open_mesh_writer(path, 9, 1, False, (0, 0, 0)) as first:
        first.vertices(POINTS, POINTS.astype(np.float32), None)
        write_mesh(path, POINTS, np.array([[3, 4, 5], [4, 5, 6]]))
        assert path.stat().st_size == 84 + 2 * 50
        first.faces(FACES)
    assert path.stat().st_size == 84 + 50
    assert [file.name for file in tmp_path.iterdir()] == ["a.stl"]
