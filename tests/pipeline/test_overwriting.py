"""No command writes over what it reads, however the path is spelled; checked before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import OverwritingError
from pipeline.generation.results import possible_files
from pipeline.overwriting import refuse_overwriting
from preprocessing.meshes.files import write_mesh
from preprocessing.scan_files import write_scan_ply

POINTS = np.random.default_rng(0).random((500, 3))


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scan with a symbolic link, a hard link and a folder link to it; the test runs beside it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scan.ply"
    write_scan_ply(path, POINTS)
    Path("soft.ply").symlink_to(path)
    os.link(path, "hard.ply")
    Path("place").symlink_to(tmp_path)
    Path("sub").mkdir()
    return path


SPELLINGS = ("scan.ply", "./scan.ply", "soft.ply", "hard.ply", "place/scan.ply", "sub/../scan.ply")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command is refused with."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    return error


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_mesh_never_replaces_the_scan(
    spelling: str, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scan.read_bytes()
    for source in ("scan.ply", "soft.ply"):
        error = refused(capsys, "reconstruct", source, "--out", "run", "--mesh", spelling)
        assert "is also read by this command" in error
    assert scan.read_bytes() == before
    assert Path("soft.ply").is_symlink()
    assert not Path("run").exists()


def test_an_out_that_is_a_file_is_told(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").write_text("years of work")
    assert "is a file, and a run needs a folder" in refused(
        capsys, "reconstruct", "scan.ply", "--out", "other"
    )
    assert Path("other").read_text() == "years of work"


def test_metrics_never_replace_a_mesh(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mesh(Path("mesh.ply"), POINTS[:3], np.array([[0, 1, 2]]))
    before = Path("mesh.ply").read_bytes()
    assert "is also read" in refused(capsys, "evaluate", "mesh.ply", "mesh.ply", "--json", "place/mesh.ply")
    assert Path("mesh.ply").read_bytes() == before


def test_weights_never_replace_their_checkpoint(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("onet.pt").write_bytes(b"weights")
    assert "is also read" in refused(
        capsys, "models", "import", "onet.pt", "--preset", "onet_img", "--out", "place/onet.pt"
    )
    assert Path("onet.pt").read_bytes() == b"weights"


@pytest.mark.parametrize("source", ["meshes", "humans", "shapenet", "scannet", "matterport"])
def test_a_dataset_never_replaces_its_source(
    source: str, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("things")
    folder.mkdir()
    write_mesh(folder / "a.ply", POINTS[:3], np.array([[0, 1, 2]]))
    assert "is also read" in refused(capsys, "preprocess", source, "things", "--out", "place/things")
    assert [path.name for path in folder.iterdir()] == ["a.ply"]


def test_training_never_writes_into_its_dataset_or_over_its_weights(
    scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.training import TrainConfig, train

    data = Path("rooms.zarr")
    data.mkdir()
    (data / "zarr.json").write_text("{}")
    for out in ("rooms.zarr", "place/rooms.zarr", "rooms.zarr/run"):
        with pytest.raises(OverwritingError, match=r"rooms\.zarr"):
            train(data, Path(out))
    Path("run").mkdir()
    Path("run/model.safetensors").write_bytes(b"weights")
    with pytest.raises(OverwritingError, match=r"model\.safetensors"):
        train(data, Path("run"), TrainConfig(initial_model="run/model.safetensors"))
    assert Path("run/model.safetensors").read_bytes() == b"weights"


def test_results_of_generate_are_all_checked(scan: Path) -> None:
    Path("walk_0001.ply").write_text("a frame")
    Path("walker.ply").write_text("another")
    names = {path.name for path in possible_files(Path("walk.ply"))}
    assert names == {"walk.ply", "walk.png", "walk.gif", "walk.glb", "walk_0001.ply"}
    for source in ("walk_0001.ply", "walk.png"):
        Path(source).touch()
        with pytest.raises(OverwritingError):
            refuse_overwriting(possible_files(Path("walk.ply")), [Path(source)])
    frames = Path("frames")
    frames.mkdir()
    (frames / "0000.ply").touch()
    with pytest.raises(OverwritingError, match="belongs to the folder"):
        refuse_overwriting([frames / "0000.ply"], [frames])
    refuse_overwriting([frames / "new.ply", None], [frames, None])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_file(spelling: str, scan: Path) -> None:
    with pytest.raises(OverwritingError, match="nothing was written"):
        refuse_overwriting([Path(spelling)], [scan])
