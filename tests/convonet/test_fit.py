"""`python -m convonet.fit`: trains, continues, and needs neither Ray nor our other packages."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convonet.errors import WeightsError
from convonet.fit import load_source, main
from convonet.volume import VolumeNetworkConfig
from convonet.weights import load_any_network, load_network, read_header, save_network
from tests.convonet.test_training import Spheres
from tests.preprocessing.ball_datasets import BALLS, write_balls

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


def test_presets_of_the_papers_train_on_the_store_as_their_families_ask(tmp_path: Path) -> None:
    data = write_balls(tmp_path / "balls.zarr", BALLS)
    for preset, kind in (("onet_repr_power", "onet"), ("shapenet_1plane", "conv_onet")):
        out = tmp_path / preset
        main([str(data), "--out", str(out), "--preset", preset, "--steps", "2", "--batch-size", "2"])
        weights = str(out / "model.safetensors")
        assert read_header(weights)["tessera_network"] == kind
    assert load_any_network(str(tmp_path / "onet_repr_power" / "model.safetensors")).config.shape_count == 3


def test_older_weights_are_trained_on_with_hints_and_distances(tmp_path: Path) -> None:
    config = VolumeNetworkConfig(unet_levels=2, has_hints=False)
    old = config.build()
    save_network(tmp_path / "old.safetensors", old, old.state_dict(), {})
    common = ["ignored", "--source", SOURCE, "--batch-size", "1", "--steps", "1", "--device", "cpu"]
    start = ["--initial", str(tmp_path / "old.safetensors")]
    main([*common, "--out", str(tmp_path / "run"), *start, "--learning-rate", "1e-12"])
    taught = load_any_network(str(tmp_path / "run" / "model.safetensors"))
    assert (taught.config.has_hints, taught.config.logits_per_voxel, taught.config.unet_levels) == (
        True,
        4.0,
        2,
    )
    for name, value in old.state_dict().items():
        torch.testing.assert_close(taught.state_dict()[name], value, atol=1e-9, rtol=0)
    with pytest.raises(WeightsError, match="holds no network of kind onet"):
        main([*common, "--out", str(tmp_path / "other"), *start, "--preset", "onet_pointcloud"])


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="module:function"):
        load_source("no.such.module:thing", Path("x"), 0)


def test_the_networks_import_without_ray_zarr_or_open3d() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'zarr', 'pyarrow', 'open3d', 'preprocessing', 'pipeline'): sys.modules[name] = None\n"
        "import convonet.fit, convonet.surface.mise, convonet.surface.marching_cubes, convonet.weights\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
