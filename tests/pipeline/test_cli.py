"""The command line reads well: help with examples, and the commands that need no cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import trimesh

from pipeline.cli import command_of, main
from pipeline.commands import TESSERA, Group
from pipeline.commands.generate import Generate
from pipeline.commands.options import documentation
from pipeline.commands.preprocess import ShapeNet
from pipeline.commands.reconstruct import Reconstruct
from pipeline.generation.config import GenerateConfig
from pipeline.reconstruction import ReconstructConfig
from preprocessing.formats import IMAGE_SUFFIXES, MESH_SUFFIXES, SCAN_SUFFIXES
from preprocessing.meshes.files import write_mesh
from preprocessing.scan_files import ScanOptions, write_scan_ply

SOURCES = ("rooms", "bodies", "meshes", "shapenet", "scannet", "matterport", "humans")
COMMANDS = [
    ["demo"],
    *(["preprocess", source] for source in SOURCES),
    ["train"],
    ["reconstruct"],
    ["evaluate"],
    ["generate"],
    ["models"],
    ["models", "list"],
    ["models", "import"],
    ["info"],
    ["clean"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_in_its_help(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert f"Example: tessera {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_usage_names_what_must_be_given(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--no-such-option"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"usage: tessera {' '.join(command)}")


def test_the_help_lists_every_format_that_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    for command, suffixes in (
        (["reconstruct"], (*SCAN_SUFFIXES, *MESH_SUFFIXES)),
        (["info"], (*SCAN_SUFFIXES, *MESH_SUFFIXES)),
        (["generate"], (*IMAGE_SUFFIXES, *MESH_SUFFIXES)),
        (["evaluate"], MESH_SUFFIXES),
        (["preprocess", "meshes"], MESH_SUFFIXES),
    ):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        words = set(re.findall(r"\w+", capsys.readouterr().out))
        assert {suffix[1:].upper() for suffix in suffixes} <= words


def test_every_setting_that_decides_a_mesh_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command, settings in (("reconstruct", ReconstructConfig), ("generate", GenerateConfig)):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        for name in {field.name for field in fields(settings)} - {"reading"}:
            assert f"--{name.replace('_', '-')} " in text or f"--{name.replace('_', '-')}," in text


def test_what_the_options_say_is_what_a_command_gets() -> None:
    words = ["reconstruct", "--columns", "x,,z", "a.ply", "--out", "run", "b.las"]
    words += ["--station", "-1,2.5,0", "4,5,-6", "--keep-classes", "2", "6", "--drop-classes"]
    words += ["--threshold", "0.3", "--drop-invalid", "--no-keep-parts"]
    command = command_of(words)
    reading = ScanOptions(
        columns=("x", "", "z"),
        stations=((-1.0, 2.5, 0.0), (4.0, 5.0, -6.0)),
        keep_classes=(2, 6),
        drop_classes=(),
    )
    config = ReconstructConfig(threshold=0.3, drop_invalid=True, reading=reading)
    assert command == Reconstruct(scans=(Path("a.ply"), Path("b.las")), out=Path("run"), config=config)
    shapes = command_of(["preprocess", "shapenet", "s", "--out", "o", "--classes", "chair", "sofa"])
    assert isinstance(shapes, ShapeNet)
    assert (shapes.classes, shapes.up, shapes.out) == (("chair", "sofa"), "y", Path("o"))
    made = command_of(["generate", "m", "--interpolate", "7", "8", "--out", "o.ply", "--noise", "1e-3"])
    assert isinstance(made, Generate)
    assert (made.source, made.shape) == (None, GenerateConfig(interpolate=("7", "8"), noise=1e-3))
    given = command_of(["generate", "m", "--out", "o.ply", "in.ply"])
    assert isinstance(given, Generate) and given.source == "in.ply"


@pytest.mark.parametrize("words", [["--help"], ["reconstruct", "--help"], ["preprocess", "meshes", "--help"]])
def test_help_needs_no_heavy_import(words: list[str]) -> None:
    program = f"""
import sys
from pipeline.cli import main
try:
    main({words})
except SystemExit:
    pass
print({{"numpy", "ray", "torch", "open3d", "scipy", "pyarrow"}} & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "set()\n")


def test_the_version_is_that_of_the_distribution_and_needs_no_heavy_import() -> None:
    program = """
import sys
from pipeline.cli import main
main(["--version"])
loaded = {"numpy", "ray", "torch", "open3d", "scipy", "pyarrow"} & set(sys.modules)
sys.exit(f"imported {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tessera {version('tessera-mesh')}\n"


def test_a_small_scene_needs_neither_ray_nor_open3d(tmp_path: Path) -> None:
    directions = np.random.default_rng(1).normal(size=(2000, 3))
    write_scan_ply(tmp_path / "ball.ply", directions / np.linalg.norm(directions, axis=1, keepdims=True))
    program = f"""
import sys
from pipeline.cli import main
main(["reconstruct", {str(tmp_path / "ball.ply")!r}, "--out", {str(tmp_path / "run")!r}])
print({{"ray", "open3d", "zarr", "pandas"}} & set(sys.modules), file=sys.stderr)
"""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept, capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (0, "set()\n")
    assert "watertight: yes" in done.stdout


def leaves(group: Group) -> Iterator[type]:
    for member in group.members.values():
        yield from leaves(member) if isinstance(member, Group) else [member]


def documented(settings: type) -> None:
    texts, types = documentation(settings)[1], get_type_hints(settings)
    for entry in fields(settings):
        if is_dataclass(types[entry.name]):
            documented(types[entry.name])
        else:
            assert len(texts[entry.name].split()) > 2


@pytest.mark.parametrize("command", list(leaves(TESSERA)))
def test_every_option_has_a_help_text(command: type) -> None:
    documented(command)


def test_the_help_names_the_option_for_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "tessera --version" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["models"], ["generate", "--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before the first line is written
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1


def test_evaluate_prints_and_stores_the_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, radius in (("a.ply", 1.0), ("b.ply", 1.1)):
        ball = trimesh.creation.icosphere(4, radius)
        write_mesh(tmp_path / name, np.asarray(ball.vertices), np.asarray(ball.faces))
    target = tmp_path / "m.json"
    files = [str(tmp_path / "a.ply"), str(tmp_path / "b.ply")]
    main(["evaluate", *files, "--thresholds", "0.05", "0.2", "--samples", "20000", "--json", str(target)])
    text = capsys.readouterr().out
    stored = json.loads(target.read_text())
    assert stored["iou"] == pytest.approx((1 / 1.1) ** 3, abs=0.01)
    assert stored["chamfer_l1"] == pytest.approx(0.1, abs=2e-3)
    assert [score["threshold_m"] for score in stored["thresholds"][1:]] == [0.05, 0.2]
    assert [score["f_score"] for score in stored["thresholds"][1:]] == [0.0, 1.0]
    assert "IoU" in text
    assert "Chamfer-L1" in text


def test_models_lists_the_default_weights(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    text = capsys.readouterr().out
    assert "volume-default (default): 1,041,025 parameters" in text
    assert Path(text.split("card: ")[1].strip()).is_file()


def test_info_describes_a_scan_the_weights_and_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan_ply(tmp_path / "a.ply", np.random.default_rng(0).random((2_000, 3)))
    main(["info", str(tmp_path / "a.ply")])
    assert "scan of 2,000 points" in capsys.readouterr().out
    main(["info"])
    assert "torch" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["info", str(tmp_path / "nothing")])
    assert stop.value.code == 1


@pytest.mark.parametrize("error", ["ValueError", "KeyError", "TypeError", "RuntimeError", "AssertionError"])
def test_a_programming_error_is_a_traceback(error: str) -> None:
    program = f"""
import pipeline.litter
from pipeline.cli import main
def broken(*_):
    raise {error}("a fault of the program")
pipeline.litter.clean = broken
main(["clean", "anything"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and f"{error}: " in done.stderr
    assert "tessera: " not in done.stderr


PLY = "a.ply"
USER_ERRORS = [
    ["demo", "--seed", "-1"],
    ["evaluate", PLY, PLY, "--samples", "0"],
    ["evaluate", PLY, PLY, "--seed", "-1"],
    ["evaluate", PLY, PLY, "--thresholds", "nan"],
    ["preprocess", "rooms", "--rooms", "-1"],
    ["preprocess", "rooms", "--rooms", "0", "--building-windows", "0"],
    ["preprocess", "rooms", "--seed", "-1"],
    ["preprocess", "bodies", "--frames", "1"],
    ["preprocess", "bodies", "--seed", "-1"],
    ["preprocess", "bodies", "--views", "--view-size", "-5"],
    ["preprocess", "meshes", ".", "--resolution", "4"],
    ["preprocess", "meshes", ".", "--largest-chamfer", "nan"],
    ["preprocess", "meshes", ".", "--memory-gib", "nan"],
    ["preprocess", "meshes", ".", "--timeout-s", "-1"],
    ["preprocess", "meshes", ".", "--views", "--view-size", "-1"],
    ["preprocess", "shapenet", ".", "--classes", "no-such"],
    ["preprocess", "humans", ".", "--frames", "0"],
    ["train", "x.zarr", "--steps", "0"],
    ["train", "x.zarr", "--batch-size", "0"],
    ["train", "x.zarr", "--learning-rate", "nan"],
    ["train", "x.zarr", "--workers", "0"],
    ["train", "x.zarr", "--checkpoint-every", "0"],
    ["train", "x.zarr", "--max-failures", "-2"],
    ["train", "x.zarr", "--seed", "-1"],
    ["train", "x.zarr", "--preset", "no-such"],
    ["train", "x.zarr", "--preset", "onet_img", "--direct-gradients"],
    ["reconstruct", PLY, "--threshold", "2"],
    ["reconstruct", PLY, "--trim", "nan"],
    ["reconstruct", PLY, "--voxel-size", "1e-300"],
    ["reconstruct", PLY, "--station", "1,2"],
    ["reconstruct", PLY, "--keep-classes", "300"],
    ["reconstruct", PLY, "--max-tile-voxels", "0", "--blend-voxels", "0"],
    ["reconstruct", PLY, "--scene-size", "1", "--voxel-size", "1"],
    ["reconstruct", PLY, "--scene-size", "1"],
    ["reconstruct", PLY, "--tiling", "box", "--query-voxels", "25", "--cells-per-voxel", "8"],
    ["generate", "volume-default", PLY, "--seed", "-1"],
    ["generate", "volume-default", PLY, "--seed", "99999999999999999999"],
    ["generate", "volume-default", PLY, "--noise", "nan"],
    ["models", "import", PLY, "--preset", "no-such"],
]


@pytest.mark.parametrize("words", USER_ERRORS, ids=" ".join)
def test_an_error_of_the_user_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scan_ply(tmp_path / PLY, np.random.default_rng(0).random((300, 3)))
    if words[0] == "evaluate":
        ball = trimesh.creation.icosphere(1)
        write_mesh(tmp_path / PLY, np.asarray(ball.vertices), np.asarray(ball.faces))
    out = [] if words[0] == "evaluate" else ["--out", "out.ply" if words[0] == "generate" else "out"]
    with pytest.raises(SystemExit) as stop:
        main([*words, *out])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("tessera: ") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [PLY]


DAMAGED_FILES = {
    "split lists": ("03001627/train.lst", ["preprocess", "shapenet", "FOLDER"]),
    "taxonomy": ("taxonomy.json", ["preprocess", "shapenet", "FOLDER"]),
    "scenes": ("scannetv2_val.txt", ["preprocess", "scannet", "FOLDER"]),
    "alignment": ("scene0/scene0.txt", ["preprocess", "scannet", "FOLDER"]),
    "dataset": ("zarr.json", ["info", "FOLDER"]),
    "manifest": ("manifest.json", ["info", "FOLDER"]),
    "weights": ("w.safetensors", ["info", "FOLDER/w.safetensors"]),
    "checkpoint": ("c.pt", ["models", "import", "FOLDER/c.pt", "--preset", "onet_img"]),
    "training": ("config.json", ["train", "x.zarr"]),
}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00garbage", b"[1, 2]", b"{}", b""], ids=["bytes", "list", "empty", "none"]
)
@pytest.mark.parametrize("case", DAMAGED_FILES)
def test_a_damaged_file_is_never_a_traceback(
    case: str,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "collection"
    for name in ("03001627/a/model.obj", "scene0/scene0_vh_clean.ply"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"\xff")
    name, words = DAMAGED_FILES[case]
    (folder / name).write_bytes(content)
    out = (
        []
        if words[0] == "info"
        else ["--out", "out", *(["--address", "x:1"] if words[0] == "preprocess" else [])]
    )
    try:
        main([*(word.replace("FOLDER", str(folder)) for word in words), *out])
    except SystemExit as end:
        assert end.code == 1
        error = capsys.readouterr().err
        assert error.startswith("tessera: ") and error.count("\n") == 1


def test_a_name_that_cannot_be_printed_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff.zarr")
    folder.mkdir()
    (folder / "zarr.json").write_text("{}")
    command = [sys.executable, "-m", "pipeline.cli", "clean", str(folder)]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\udcff.zarr: " in done.stdout


@pytest.mark.parametrize(
    "words", [["--trim", "a"], ["--station", "1,b,3"], ["--unit", "mile"], ["--no-such"], []], ids=" ".join
)
def test_words_that_make_no_command_are_exit_code_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", *words, *(["--out", "run", "a.ply"] if words else [])])
    assert stop.value.code == 2
    assert "usage: tessera reconstruct SCAN" in capsys.readouterr().err
