"""Weights survive the disk, and foreign or damaged files are refused."""

import os
from pathlib import Path

import pytest
import torch

from convonet.atomic_file import appearing
from convonet.errors import WeightsError
from convonet.training import TrainingConfig, TrainingState
from convonet.volume_network import VolumeNetwork, VolumeNetworkConfig
from convonet.weights import load_network, read_header, save_network

SMALL = VolumeNetworkConfig(
    feature_size=8, encoder_hidden=8, encoder_blocks=2, unet_levels=2, decoder_hidden=8
)


def saved(path: Path) -> VolumeNetwork:
    network = VolumeNetwork(SMALL)
    save_network(path, network, network.state_dict(), {"steps": "12"})
    return network


def test_a_saved_network_comes_back_identical(tmp_path: Path) -> None:
    network = saved(tmp_path / "w.safetensors")
    loaded = load_network(str(tmp_path / "w.safetensors"))
    assert loaded.config == SMALL
    assert read_header(str(tmp_path / "w.safetensors"))["steps"] == "12"
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def write_weights(path: Path) -> None:
    saved(path)


def write_checkpoint(path: Path) -> None:
    TrainingState.fresh(VolumeNetwork(SMALL), TrainingConfig()).save(path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
@pytest.mark.parametrize("write", [write_weights, write_checkpoint])
def test_written_files_have_the_user_s_permissions(tmp_path: Path, write: object, umask: int) -> None:
    assert callable(write)
    before = os.umask(umask)
    try:
        write(tmp_path / "w.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("write", [write_weights, write_checkpoint])
def test_neighbors_of_a_written_file_stay(tmp_path: Path, write: object) -> None:
    assert callable(write)
    for name in ("w.tmp", "w.safetensors.tmp", ".w.safetensors"):
        (tmp_path / name).write_text("years of work")
    write(tmp_path / "w.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".w.safetensors", "w.safetensors", "w.safetensors.tmp", "w.tmp"
    ]  # fmt: skip
    assert (tmp_path / "w.tmp").read_text() == "years of work"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "a") as partial:
        partial.write_text("half of the new")
        assert (tmp_path / "a").read_text() == "old"
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    saved(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        load_network(str(path))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_network(str(path))


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(WeightsError, match="packaged model"):
        load_network("no-such-model")
