"""`python -m convonet.fit`: trains, continues, and needs neither Ray nor our other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from convonet.fit import load_source, main
from convonet.weights import load_network, read_header
from tests.convonet.test_training import Spheres

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "tests.convonet.test_fit:sphere_source"


def sphere_source(data: Path, seed: int) -> Spheres:
    del data, seed
    return Spheres()


def test_it_trains_and_continues_from_its_checkpoint(tmp_path: Path) -> None:
    common = ["ignored", "--out", str(tmp_path), "--source", SOURCE, "--batch-size", "1", "--device", "cpu"]
    main([*common, "--steps", "2", "--checkpoint-every", "1"])
    assert read_header(str(tmp_path / "model.safetensors"))["steps"] == "2"
    main([*common, "--steps", "3", "--checkpoint-every", "1"])
    assert read_header(str(tmp_path / "model.safetensors"))["steps"] == "3"
    assert load_network(str(tmp_path / "model.safetensors")).receptive_radius > 0


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="module:function"):
        load_source("no.such.module:thing", Path("x"), 0)


def test_the_networks_import_without_ray_zarr_or_open3d() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'zarr', 'pyarrow', 'open3d', 'preprocessing', 'pipeline'): sys.modules[name] = None\n"
        "import convonet.fit, convonet.mise, convonet.marching_cubes, convonet.weights\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
