"""Weights on disk: safetensors with the network's configuration in the header, never a pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convonet.crop_network import CropNetwork
from convonet.errors import WeightsError
from convonet.registry import FAMILIES, config_from_json, family_of
from foundation.atomic_file import appearing
from foundation.local_paths import local_path

PACKAGED = Path(__file__).parent / "weights"
DEPTHS, DEEPEST = ("_blocks", "_levels", "_layers"), 64  # settings that count modules
KIND_KEY, CONFIG_KEY = "tessera_network", "tessera_config"


def packaged_models() -> list[str]:
    """Names of the weights that ship with the package."""
    return sorted(path.stem for path in PACKAGED.glob("*.safetensors"))


def model_file(model: str) -> Path:
    """The file of a packaged model's name, or of a path.

    Raises:
        WeightsError: if it is neither.
    """
    packaged = PACKAGED / f"{model}.safetensors"
    if "/" not in model and packaged.exists():
        return packaged
    path = local_path(model)
    if path.is_file():
        return path
    names = ", ".join(packaged_models()) or "none"
    raise WeightsError(f"{model}: no such weights file, nor a packaged model (there are: {names})")


def save_network(path: Path, network: nn.Module, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Write weights that appear whole or not at all.

    Args:
        path: the safetensors file.
        network: whose configuration (its attribute `config`) goes into the header.
        tensors: its state dict, or a running average of it.
        facts: provenance such as steps, data and metrics, stored beside the configuration.

    Raises:
        OSError: if the file cannot be written.
    """
    path = local_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    config: Any = network.config
    header = {KIND_KEY: config.kind, CONFIG_KEY: json.dumps(asdict(config)), **facts}
    with appearing(path) as partial:
        try:
            save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=header)
        except SafetensorError as error:  # the library's word for any failure to write
            raise OSError(f"{path}: cannot be written ({error})") from error


def read_header(model: str) -> dict[str, str]:
    """The header of a weights file: configuration and provenance.

    Raises:
        WeightsError: if the file is not one of ours, or is damaged.
    """
    path = model_file(model)
    try:
        with safe_open(path, framework="pt") as stored:
            header: dict[str, str] = stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); download or train it again"
        ) from error
    if header.get(KIND_KEY) not in FAMILIES:
        raise WeightsError(
            f"{path}: holds no Tessera network; pass weights made by `tessera train` or `models import`"
        )
    return header


def load_any_network(model: str) -> nn.Module:
    """A network of any kind with its weights, ready for inference on the CPU; its `config` tells what it is.

    Raises:
        WeightsError: if the file is missing, damaged, or does not match its own configuration.
    """
    path = model_file(model)
    header = read_header(model)
    try:
        config = config_from_json(header[KIND_KEY], json.loads(header[CONFIG_KEY]))
        _check_sizes(path, config)
        network: nn.Module = config.build()
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        network.load_state_dict(tensors)
    except (RuntimeError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: weights do not fit their configuration: {reason}") from error
    broken = [name for name, values in tensors.items() if not bool(torch.isfinite(values).all())]
    if broken:
        raise WeightsError(
            f"{path}: {len(broken)} of {len(tensors)} weights are not finite, the first is {broken[0]}; "
            "train it again or take an earlier checkpoint"
        )
    network.requires_grad_(False)
    return network.eval()


def _check_sizes(path: Path, config: Any) -> None:
    """Compare what a configuration would build with the tensors that the file holds, before memory is reserved.

    Raises:
        ValueError: if a depth is absurd or shapes differ.
    """
    for name, value in asdict(config).items():
        if name.endswith(DEPTHS) and isinstance(value, int) and value > DEEPEST:
            raise ValueError(f"{name} is {value}, and no network here is deeper than {DEEPEST}")
    with torch.device("meta"):
        wanted = {name: tuple(values.shape) for name, values in config.build().state_dict().items()}
    with safe_open(path, framework="pt") as stored:
        held = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    for name in sorted(wanted.keys() | held.keys()):
        if wanted.get(name) != held.get(name):
            raise ValueError(
                f"{name} should be {wanted.get(name, 'absent')} and is {held.get(name, 'absent')}"
            )


def load_network(model: str) -> CropNetwork:
    """A network that reconstructs scenes crop by crop, with its weights.

    Networks of crops with the originals' weights come in voxel units, too.

    Raises:
        WeightsError: as `load_any_network`, and if the network makes single objects.
    """
    network = load_any_network(model)
    config: Any = network.config
    crop_network = family_of(config).crop_network(network)
    if crop_network is not None:
        return crop_network
    raise WeightsError(
        f"{model_file(model)}: holds a network of kind {config.kind}, which makes single objects "
        "(`tessera generate`); reconstruction needs one of crops, such as volume, crop_3plane or crop_room_grid64"
    )
