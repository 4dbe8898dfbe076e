"""What is lost or damaged in a run directory is named and computed again; nothing wrong is believed."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import reconstruct
from pipeline.cli import main
from pipeline.errors import RunDirectoryError, RunFileError
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.check import check_run
from pipeline.reconstruction.manifest import read_manifest
from pipeline.reconstruction.merge import faces_file, finished_tiles, vertices_file
from pipeline.reconstruction.stages import SurfaceRequest, TileJob, surface_tile
from pipeline.reconstruction.store import RunStore
from preprocessing.scan_files import write_scan_ply

CONFIG = ReconstructConfig(voxel_size=0.25)
FLIPS = 500


@pytest.fixture(scope="module")
def finished(scene_points: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan and a finished run of one tile and several levels."""
    folder = tmp_path_factory.mktemp("finished")
    write_scan_ply(folder / "scene.ply", scene_points[:3_000])
    reconstruct(folder / "scene.ply", folder / "run", CONFIG, show_progress=False)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def again(folder: Path) -> tuple[int, bytes, str]:
    """Run the same command: tiles computed, the mesh's bytes and the report's notes."""
    report = reconstruct(folder / "scene.ply", folder / "run", CONFIG, show_progress=False)
    return report.tiles_computed, (folder / "run/mesh.ply").read_bytes(), "; ".join(report.notes)


def opened(run: Path) -> RunStore:
    return RunStore(str(run), read_manifest(RunStore(str(run))).identity)


def exit_code(*arguments: str | Path) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def tables_of(run: Path) -> list[Path]:
    return sorted(run.rglob("*.parquet"))


def test_a_run_has_tables_of_points_of_every_level_and_of_tiles(finished: Path) -> None:
    names = {str(path.relative_to(finished / "run")) for path in tables_of(finished / "run")}
    assert {"points/index.parquet", "points/level-1/index.parquet", vertices_file(0), faces_file(0)} <= names


def test_no_flipped_bit_is_believed(copy: Path) -> None:
    """In every table, at random; what `check_run` tells is what every reader is told (see test_sealed_tables)."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    store = opened(copy / "run")
    manifest = read_manifest(store)
    paths = tables_of(copy / "run")
    for number in range(FLIPS):
        path = paths[number % len(paths)]
        intact = path.read_bytes()
        damaged = bytearray(intact)
        place = draw.randrange(8 * len(intact))
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert [str(error.name) for error in check_run(store, manifest)] == [
            str(path.relative_to(copy / "run"))
        ], f"bit {place} of {path}"
        path.write_bytes(intact)
    assert check_run(store, manifest) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize(
    "name",
    [
        vertices_file(0),
        faces_file(0),
        "points/index.parquet",
        "points/chunk-000000.parquet",
        "points/level-1/chunk-000000.parquet",
        "manifest.json",
        "report.json",
    ],
)
def test_what_is_harmed_is_computed_again(
    copy: Path, name: str, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = (copy / "run/mesh.ply").read_bytes()
    harm(copy / "run" / name)
    is_report = name == "report.json"
    checked = exit_code("info", copy / "run", "--check")
    told = capsys.readouterr()
    assert checked == (0 if is_report and harm is Path.unlink else 1)
    if checked:
        assert name in told.err and "run the same command again" in told.err
    computed, remade, _ = again(copy)
    assert remade == mesh
    assert computed == (1 if name.startswith("tiles/") else 0)
    assert exit_code("info", copy / "run", "--check") == 0
    assert "all files agree with their checksums" in capsys.readouterr().out


def test_a_damaged_tile_is_named_in_the_report(copy: Path) -> None:
    flip(copy / "run" / faces_file(0))
    _, _, notes = again(copy)
    assert f"{faces_file(0)} differs from its checksum" in notes
    assert "computed again" in notes


def test_swapped_files_are_not_believed(copy: Path) -> None:
    mesh = (copy / "run/mesh.ply").read_bytes()
    shutil.copy(copy / "run" / faces_file(0), copy / "run" / vertices_file(0))
    computed, remade, notes = again(copy)
    assert (computed, remade) == (1, mesh)
    assert "under another name" in notes


def test_a_tile_of_another_run_is_not_believed(copy: Path, tmp_path: Path) -> None:
    config = ReconstructConfig(voxel_size=0.25, threshold=0.4)
    reconstruct(copy / "scene.ply", tmp_path / "other", config, show_progress=False)
    mesh = (copy / "run/mesh.ply").read_bytes()
    for name in (faces_file(0), vertices_file(0)):
        shutil.copy(tmp_path / "other" / name, copy / "run" / name)
    computed, remade, notes = again(copy)
    assert (computed, remade) == (1, mesh)
    assert "belongs to another run" in notes


def test_stray_files_are_ignored(copy: Path) -> None:
    mesh = (copy / "run/mesh.ply").read_bytes()
    for name in (
        "tiles/._00000001.vertices.parquet",
        "tiles/00000002.vertices.parquet.partial-1",
        "tiles/a.txt",
    ):
        (copy / "run" / name).write_bytes(b"nothing")
    (copy / "run/._mesh.ply").write_bytes(b"nothing")
    assert again(copy)[:2] == (0, mesh)
    assert exit_code("info", copy / "run", "--check") == 0


def test_a_run_of_another_version_is_refused(copy: Path) -> None:
    path = copy / "run/manifest.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({"hash": "x", "scan": "scene.ply", "plans": written["plans"]}))
    with pytest.raises(RunDirectoryError, match="another version of tessera"):
        again(copy)


def test_a_foreign_folder_with_a_manifest_is_left_alone(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(RunDirectoryError, match="choose another --out"):
        reconstruct(copy / "scene.ply", tmp_path / "site", CONFIG, show_progress=False)
    assert (tmp_path / "site/manifest.json").read_text() == '{"name": "a web page"}'


def test_a_late_task_cannot_make_an_empty_tile_of_deleted_fields(copy: Path) -> None:
    """The first of two drivers deletes the fields at its end; a task of the other one must not read them as free."""
    store = opened(copy / "run")
    manifest = read_manifest(store)
    job = TileJob(store, manifest.plans, "", 0.5, "cpu", False, 0.6, 1.5)
    (copy / "run" / vertices_file(0)).unlink()
    with pytest.raises(RunFileError, match="is missing"):
        surface_tile(job, SurfaceRequest(0, (0,)))
    assert finished_tiles(store) == []


HOLDER = """
import sys, time
from pathlib import Path
from pipeline.lease import lease
with lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_command_is_refused_and_a_dead_one_is_no_hindrance(copy: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(copy / "run")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(
            RunDirectoryError, match=rf"process {holder.pid} on {socket.gethostname()}.*alive"
        ):
            again(copy)
    finally:
        holder.kill()
        holder.wait()
    assert again(copy)[0] == 0
    assert not (copy / "run/.lease.json").exists()


def test_a_refused_scan_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "bad.ply").write_bytes(b"ply\nnothing")
    assert exit_code("reconstruct", tmp_path / "bad.ply", "--out", tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()
