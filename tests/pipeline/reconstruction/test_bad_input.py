"""What users get wrong: one clear line, exit code 1, nothing half written."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import pytest
import torch
import trimesh

from convonet import DEFAULT_MODEL
from convonet.weights import load_network, save_network
from pipeline.cli import main
from preprocessing.meshes.files import write_mesh
from preprocessing.scan_files import write_scan_ply
from tests.references.solid_scene import scan_points

POINTS = np.random.default_rng(0).random((2_000, 3))


def las(path: Path) -> None:
    cloud = laspy.create(point_format=0)
    cloud.header.scales, cloud.header.offsets = [1e-4] * 3, [0.0] * 3
    cloud.x, cloud.y, cloud.z = POINTS.T
    cloud.write(path)


def truncated(path: Path, write: Callable[[Path], None], lost: int) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:-lost])


def endless_chunks(path: Path) -> None:
    """A table of so many chunks that the decoder aborts the process where there is no memory for it."""
    las(path)
    data = bytearray(path.read_bytes())
    points_start = struct.unpack_from("<I", data, 96)[0]
    table = struct.unpack_from("<q", data, points_start)[0]
    data[table + 4 : table + 8] = b"\xff" * 4
    path.write_bytes(data)


def with_invalid(path: Path) -> None:
    points = POINTS.copy()
    points[:14] = np.nan
    points[14] = np.inf
    write_scan_ply(path, points)


def box_mesh(path: Path) -> None:
    box = trimesh.creation.box()
    write_mesh(path, np.asarray(box.vertices), np.asarray(box.faces))


CASES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no bytes": ("a.ply", lambda path: path.write_bytes(b"") and None, "0 bytes"),
    "no points": ("a.ply", lambda path: write_scan_ply(path, np.zeros((0, 3))), "holds no points"),
    "one point": ("a.ply", lambda path: write_scan_ply(path, POINTS[:1]), "holds 1 point;"),
    "not finite": ("a.ply", with_invalid, "15 of 2,000 points are not finite"),
    "all equal": ("a.ply", lambda path: write_scan_ply(path, np.ones((500, 3))), "same position"),
    "a mesh": ("a.ply", box_mesh, "is a mesh with 12 faces"),
    "truncated ply": (
        "a.ply",
        lambda path: truncated(path, lambda p: write_scan_ply(p, POINTS), 100),
        "truncated",
    ),
    "truncated las": ("a.las", lambda path: truncated(path, las, 500), "truncated"),
    "truncated laz": ("a.laz", lambda path: truncated(path, las, 500), "truncated or damaged"),
    "damaged laz": ("a.laz", endless_chunks, "copy or export it again"),
    "unknown format": ("a.doc", lambda path: path.write_text("x") and None, "unknown scan format"),
    "too wide": ("a.ply", lambda path: write_scan_ply(path, POINTS * [1e6, 1, 1]), "check the scan's unit"),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of the command."""
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", *arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", list(CASES))
def test_a_bad_scan_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, write, message = CASES[name]
    write(tmp_path / file)
    extra = ["--voxel-size", "0.05"] if name == "too wide" else []
    code, error = run(capsys, str(tmp_path / file), "--out", str(tmp_path / "run"), *extra)
    assert code == 1
    assert error.startswith("tessera: ")
    assert len(error.strip().splitlines()) == 1
    assert file in error
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voxel-size", "0"], "voxel size must be a positive number"),
        (["--voxel-size", "-1"], "voxel size must be a positive number"),
        (["--voxel-size", "nan"], "voxel size must be a positive number"),
        (["--model", "no-such"], "no-such"),
        (["--mesh", "mesh.doc"], "mesh formats are"),
    ],
)
def test_a_bad_option_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan_ply(tmp_path / "a.ply", POINTS)
    code, error = run(capsys, str(tmp_path / "a.ply"), "--out", str(tmp_path / "run"), *arguments)
    assert (code, len(error.strip().splitlines())) == (1, 1)
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_things_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan_ply(tmp_path / "a.ply", POINTS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    code, error = run(capsys, str(tmp_path / "a.ply"), "--out", str(tmp_path / "run"))
    assert code == 1
    assert "not empty, is not a run of tessera" in error
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_the_installed_command_exits_with_1_and_2(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("tessera")), "reconstruct"]
    missing = subprocess.run(
        [*command, "no.ply", "--out", str(tmp_path / "r")], capture_output=True, text=True
    )
    assert missing.returncode == 1
    assert missing.stderr.strip() == "tessera: no.ply: no such file"
    usage = subprocess.run([*command, "no.ply"], capture_output=True, text=True)
    assert usage.returncode == 2
    assert "--out" in usage.stderr + usage.stdout


def test_values_that_are_not_finite_are_refused_and_leave_no_mesh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that are finite themselves, but whose values on a scan are not."""
    network = load_network(DEFAULT_MODEL)
    tensors = network.state_dict()
    tensors["decoder.fc_out.weight"] = torch.full_like(tensors["decoder.fc_out.weight"], 3e38)
    save_network(tmp_path / "huge.safetensors", network, tensors, {})
    write_scan_ply(tmp_path / "a.ply", scan_points(seed=3, count=3_000))
    options = ("--out", str(tmp_path / "run"), "--model", str(tmp_path / "huge.safetensors"))
    code, error = run(capsys, str(tmp_path / "a.ply"), "--voxel-size", "0.25", *options)
    assert code == 1
    assert "values are not finite" in error and "--model" in error
    assert not (tmp_path / "run" / "mesh.ply").exists()
    assert not list((tmp_path / "run").glob("tiles/*"))
