"""Weights survive the disk, and foreign or damaged files are refused."""

from pathlib import Path

import pytest
import torch

from convonet.errors import WeightsError
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
