"""The command line reads well: help with examples, and the commands that need no cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.cli import main
from preprocessing.mesh_files import write_mesh
from preprocessing.scan_files import write_scan_ply

SOURCES = ("rooms", "bodies", "meshes", "shapenet", "scannet", "matterport", "humans")
COMMANDS = [
    ["demo"],
    *(["preprocess", source] for source in SOURCES),
    ["train"],
    ["reconstruct"],
    ["evaluate"],
    ["models"],
    ["info"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_in_its_help(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert f"Example: tessera {' '.join(command)}" in capsys.readouterr().out


def test_the_version_is_that_of_the_distribution_and_needs_no_heavy_import() -> None:
    program = """
import sys
from pipeline.cli import main
main(["--version"])
loaded = {"ray", "torch", "open3d", "scipy", "pyarrow"} & set(sys.modules)
sys.exit(f"imported {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"tessera {version('tessera-mesh')}\n"


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
