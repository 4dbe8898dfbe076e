"""Every path argument but the run directory of a reconstruction refuses URLs, before anything is read or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main
from preprocessing.scan_files import write_scan_ply
from tests.preprocessing.ball_datasets import BALLS, write_balls

URL = "s3://bucket/thing"
COMMANDS = [
    "reconstruct {url}.ply --out run",
    "reconstruct {url}/*.las --out run",
    "reconstruct scan.ply --out run --mesh {url}.ply",
    "reconstruct scan.ply --out run --model {url}.safetensors",
    "demo --out {url}",
    "preprocess rooms --out {url}.zarr --rooms 1 --building-windows 0",
    "preprocess bodies --out {url}.zarr --sequences 1",
    "preprocess meshes {url} --out data.zarr",
    "preprocess meshes . --out {url}.zarr",
    "preprocess shapenet {url} --out data.zarr",
    "preprocess scannet {url} --out data.zarr",
    "preprocess matterport {url} --out data.zarr",
    "preprocess humans {url} --out data.zarr",
    "train {url}.zarr --out run",
    "train {url}.zarr --out run --preset shapenet_3plane",
    "train balls.zarr --out {url} --preset shapenet_3plane",
    "train balls.zarr --out run --preset shapenet_3plane --initial-model {url}.safetensors",
    "train balls.zarr --out run --preset onet_img --imagenet {url}.pth",
    "evaluate {url}.ply scan.ply",
    "evaluate scan.ply {url}.ply",
    "evaluate scan.ply scan.ply --json {url}.json",
    "generate {url}.safetensors --out mesh.ply",
    "generate volume-default {url}.ply --out mesh.ply",
    "generate volume-default --out {url}.ply",
    "models import {url}.pt --preset onet_img --out onet.safetensors",
    "models import scan.ply --preset onet_img --out {url}.safetensors",
    "info {url}",
    "info {url} --check",
    "clean {url}",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, scene_points: object) -> Path:
    folder = tmp_path_factory.mktemp("urls")
    write_scan_ply(folder / "scan.ply", scene_points[:100])  # type: ignore[index]
    write_balls(folder / "balls.zarr", BALLS)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_is_refused_by_name(
    command: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    before = sorted(path.name for path in inputs.iterdir())
    with pytest.raises(SystemExit) as stop:
        main(command.format(url=URL).split())
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"tessera: {URL}"), error
    assert "is a URL, where only a local path will do" in error
    assert sorted(path.name for path in inputs.iterdir()) == before


def test_a_run_at_a_url_needs_a_local_mesh(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    url = f"{URL}?endpoint_override=127.0.0.1:1&scheme=http"
    with pytest.raises(SystemExit):
        main(["reconstruct", "scan.ply", "--out", url])
    assert f"{url}: is not on this machine; pass --mesh FILE for the final mesh" in capsys.readouterr().err
