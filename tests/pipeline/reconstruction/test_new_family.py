"""A family that is added by one folder (`tests.toy_family`) and one line of the registry works everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from convonet import fit
from convonet.registry import FAMILIES
from convonet.weights import load_network, read_header, save_network
from pipeline import reconstruct
from pipeline.cli import main
from pipeline.reconstruction import ReconstructConfig
from preprocessing.scan_files import write_scan_ply
from tests.toy_family import BlurConfig

VOXEL = 0.1


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "blur", "tests.toy_family")


def test_a_new_family_trains_and_reconstructs_a_scan(tmp_path: Path) -> None:
    source = "tests.convonet.test_fit:sphere_source"
    options = ["--preset", "blur", "--source", source, "--steps", "5", "--device", "cpu"]
    fit.main(["ignored", "--out", str(tmp_path / "training"), *options, "--learning-rate", "1e-3"])
    model = tmp_path / "training" / "model.safetensors"
    assert read_header(str(model))["tessera_network"] == "blur"
    assert not torch.equal(load_network(str(model)).blur.weight, BlurConfig().build().blur.weight)

    directions = np.random.default_rng(5).normal(size=(4000, 3))
    points = 12 * VOXEL * directions / np.linalg.norm(directions, axis=1, keepdims=True) + [31.3, -7.2, 2.9]
    write_scan_ply(tmp_path / "ball.ply", points)
    settings = ReconstructConfig(model=str(model), voxel_size=VOXEL)
    report = reconstruct(tmp_path / "ball.ply", tmp_path / "run", settings, show_progress=False)
    mesh = trimesh.load(report.mesh, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    to_mesh, _ = cKDTree(mesh.vertices).query(points)
    to_points, _ = cKDTree(points).query(mesh.vertices)
    assert to_mesh.max() < 4 * VOXEL and to_points.max() < 4 * VOXEL


def test_the_commands_know_a_new_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    assert "blur" in capsys.readouterr().out
    network = BlurConfig().build()
    save_network(tmp_path / "blur.safetensors", network, network.state_dict(), {})
    with pytest.raises(SystemExit):
        main(["generate", str(tmp_path / "blur.safetensors"), "x.ply", "--out", str(tmp_path / "y.ply")])
    assert "is a blur network, which turns whole scans into meshes" in capsys.readouterr().err
