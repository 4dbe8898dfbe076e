"""What killed commands leave is found, told and removed, and never what a command is writing."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.lease import lease
from pipeline.ray_folder import abandoned_ray_folders, ray_folder
from preprocessing.dataset import check_shard, read_layout
from tests.preprocessing.ball_datasets import BALLS, write_balls


def partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial-{uuid.uuid4().hex}")


def written(path: Path, size: int = 1_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def run_folder(folder: Path, mesh: Path, is_finished: bool) -> Path:
    run = folder / "run"
    written(run / "tiles" / "00000000.vertices.parquet")
    written(run / "fields" / "tile-00000000.parquet")
    (run / "manifest.json").write_text(json.dumps({"surface_tiles": [0] if is_finished else None}))
    (run / "report.json").write_text(json.dumps({"mesh": str(mesh)}))
    return run


def training_folder(folder: Path) -> Path:
    run = folder / "run"
    for number in range(3):
        written(run / "ray" / f"checkpoint_{number}" / "state.pt")
    written(run / "config.json")
    written(run / "checkpoint.partial" / "state.pt")  # what the run continues from
    listed = [{"checkpoint_dir_name": f"checkpoint_{number}"} for number in (1, 2)]
    snapshot = run / "ray" / "checkpoint_manager_snapshot.json"
    snapshot.write_text(json.dumps({"checkpoint_results": listed}))
    return run


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def check_that_only_litter_goes(
    place: Path, around: Path, litter: set[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(around)
    main(["clean", str(place)])
    told = capsys.readouterr().out
    assert files_of(around) == before, "something was removed without --yes"
    assert "would be freed; pass --yes" in told
    assert all(str(path) in told or str(path.parent) in told for path in litter)
    main(["clean", str(place), "--yes"])
    assert "removed" in capsys.readouterr().out
    assert files_of(around) == before - litter
    main(["clean", str(place)])
    assert "nothing to remove" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("ray")))


@pytest.mark.parametrize("is_finished", [True, False])
def test_of_a_run(is_finished: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = written(tmp_path / "meshes" / "house.glb")
    run = run_folder(tmp_path, mesh, is_finished)
    litter = {
        written(partial(run / "tiles" / "00000001.faces.parquet")),
        written(partial(run / ".mesh.ply")),
        written(partial(mesh.with_name(".house.glb"))),
    }
    written(partial(mesh.with_name(".other.glb")))  # of another command
    written(run / "notes.partial-draft")  # of the user
    written(run / f".lease.json.{uuid.uuid4().hex}")  # of a command that waits
    aside = written(run / f".lease.json.{uuid.uuid4().hex}")  # of one that was killed while it waited
    os.utime(aside, (time.time() - 3_600,) * 2)
    litter.add(aside)
    if is_finished:
        litter.add(run / "fields" / "tile-00000000.parquet")
    check_that_only_litter_goes(run, tmp_path, litter, capsys)


def test_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = training_folder(tmp_path)
    litter = {
        written(partial(run / ".model.safetensors")),
        written(run / "config.partial"),
        run / "ray" / "checkpoint_0" / "state.pt",
    }
    check_that_only_litter_goes(run, tmp_path, litter, capsys)


def test_of_a_dataset_only_what_nobody_has_touched_for_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_balls(tmp_path / "balls.zarr", BALLS)
    old = {
        written(partial(store / "points" / "c" / "0" / ".0")),
        written(tmp_path / f".balls.zarr.creating-{uuid.uuid4().hex}" / "zarr.json"),
    }
    for path in (*old, *(path.parent for path in old)):
        os.utime(path, (time.time() - 3_600,) * 2)
    written(partial(store / "points" / "c" / "0" / ".0"))  # of a command at work
    written(tmp_path / f".balls.zarr.creating-{uuid.uuid4().hex}" / "zarr.json")
    check_that_only_litter_goes(store, tmp_path, old, capsys)
    layout, _ = read_layout(store)
    assert all(check_shard(store, shard) == [] for shard in range(layout.shards))


def test_a_folder_that_a_command_holds_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path, tmp_path / "mesh.ply", is_finished=True)
    written(partial(run / ".mesh.ply"))
    before = files_of(run)
    with lease(run), pytest.raises(SystemExit) as stop:
        main(["clean", str(run), "--yes"])
    assert stop.value.code == 1
    assert "another command" in capsys.readouterr().err
    assert files_of(run) == before


def test_any_other_folder_is_refused_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(partial(tmp_path / "a"))
    with pytest.raises(SystemExit) as stop:
        main(["clean", str(tmp_path), "--yes"])
    assert stop.value.code == 1
    assert "neither a run directory, a dataset nor a training folder" in capsys.readouterr().err
    assert len(files_of(tmp_path)) == 1


def test_the_folder_of_a_ray_lives_as_long_as_its_command() -> None:
    with ray_folder() as folder:
        assert abandoned_ray_folders() == []
        written(folder / "session" / "log")
        with ray_folder() as other:
            assert folder.is_dir() and other != folder
    assert not folder.exists()


def test_the_folder_of_a_killed_command_is_removed_by_the_next(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        with ray_folder():
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    (left,) = abandoned_ray_folders()
    with ray_folder():
        assert not left.exists()
