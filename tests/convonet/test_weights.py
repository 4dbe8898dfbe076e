"""Weights survive the disk, and foreign or damaged files are refused."""

import dataclasses
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convonet.errors import WeightsError
from convonet.training import TrainingConfig, TrainingState
from convonet.volume import VolumeNetwork, VolumeNetworkConfig
from convonet.weights import (
    CONFIG_KEY,
    KIND_KEY,
    load_any_network,
    load_network,
    read_header,
    save_network,
)

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


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("unet_levels", 12, "do not fit their configuration"),
        ("unet_levels", 65, "unet_levels is 65"),
        ("decoder_blocks", 1_000_000, "decoder_blocks is 1000000"),
        ("feature_size", 100_000, "do not fit their configuration"),
    ],
)
def test_a_configuration_that_asks_for_much_memory_is_refused_before_it_gets_it(
    setting: str, value: int, words: str, tmp_path: Path
) -> None:
    network = VolumeNetwork(SMALL)
    header = {
        KIND_KEY: "volume",
        CONFIG_KEY: json.dumps(dataclasses.asdict(network.config) | {setting: value}),
    }
    save_file(network.state_dict(), tmp_path / "w.safetensors", metadata=header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=words) as error:
        load_any_network(str(tmp_path / "w.safetensors"))
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    network = VolumeNetwork(SMALL)
    tensors = {name: values.clone() for name, values in network.state_dict().items()}
    name = sorted(tensors)[3]
    tensors[name].view(-1)[0] = float("nan")
    save_network(tmp_path / "w.safetensors", network, tensors, {})
    with pytest.raises(
        WeightsError, match=rf"1 of {len(tensors)} weights are not finite, the first is {name}"
    ):
        load_any_network(str(tmp_path / "w.safetensors"))
