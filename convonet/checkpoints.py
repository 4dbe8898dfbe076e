"""Checkpoints of the original implementations: read without running their code, and kept as weights files."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convonet.errors import EntriesError, WeightsError
from convonet.family import NetworkConfig
from convonet.registry import family_of, presets
from convonet.weights import save_network
from foundation.local_paths import local_path

# The originals keep the best loss as a numpy scalar: its constructor, dtypes and nothing else of numpy.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]
_CURE = "pass the .pt file that the original's training or its download script wrote, whole"
_LISTED = 3


def read_original_checkpoint(path: Path) -> dict[str, Tensor]:
    """The network's entries of a checkpoint that one of the original implementations wrote.

    Only tensors, plain values and numpy scalars are unpickled, so that a file cannot run code.

    Args:
        path: a checkpoint with an entry `model`, or a bare state dict, as `torch.save` writes them; the prefix
            `module.` that parallel training leaves on every name is dropped.

    Returns:
        Names in the original to tensors on the CPU.

    Raises:
        WeightsError: if the file is missing, damaged, holds code, or holds no network.
    """
    path = local_path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise WeightsError(f"{path}: {what}; {_CURE}")
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on other files' pickle protocols
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the parsers of zip and pickle raise whatever damage leads them to
        raise WeightsError(f"{path}: not readable as a checkpoint ({_reason(error)}); {_CURE}") from error
    state = stored.get("model", stored) if isinstance(stored, Mapping) else stored
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise WeightsError(f"{path}: holds no network (an entry 'model' with named tensors); {_CURE}")
    is_parallel = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if is_parallel else name: value for name, value in state.items()}


@dataclass(frozen=True)
class ImportedNetwork:
    """What an import made.

    Attributes:
        network: with the checkpoint's weights.
        also_fits: other presets of the same entries and shapes, each with what tells it apart from the chosen one.
    """

    network: nn.Module
    also_fits: dict[str, str]


def import_original(
    path: Path, preset: str, out: Path, facts: Mapping[str, str] | None = None
) -> ImportedNetwork:
    """Keep a checkpoint of an original implementation as a weights file of ours.

    Args:
        path: the checkpoint.
        preset: name of the published configuration that it was trained with, as `original_presets` lists them.
        out: the safetensors file to write.
        facts: provenance to store beside the preset and the checkpoint's name and SHA-256.

    Returns:
        The network, and the other presets that the checkpoint may be of.

    Raises:
        WeightsError: if the checkpoint cannot be read or is of another network; names the presets that fit.
    """
    path, out = Path(path), Path(out)
    known = original_presets()
    if preset not in known:
        originals = ", ".join(known)
        raise WeightsError(f"no preset of the originals is called {preset!r}; there are {originals}")
    if out.suffix != ".safetensors":
        raise WeightsError(f"{out}: weights are written as safetensors; let the name end in .safetensors")
    state = read_original_checkpoint(path)
    try:
        config, entries = _from_original(state, known[preset])
        network = config.build()
        network.load_state_dict(entries)
    except WeightsError as error:
        raise WeightsError(f"{path}: not the weights of {preset}: {_advice(state, error)}") from error
    stored = {
        "source": path.name,
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "preset": preset,
    }
    save_network(out, network, network.state_dict(), {**(facts or {}), **stored})
    others = [name for name in fitting_presets(state) if name != preset]
    return ImportedNetwork(network, {name: _distinction(preset, name) for name in others})


def _distinction(preset: str, other: str) -> str:
    """What tells another preset of the same entries and shapes apart from the chosen one."""
    chosen, different = (original_presets()[name] for name in (preset, other))
    if type(chosen) is not type(different):
        return f"a network of kind {different.kind}, not {chosen.kind}"
    differing = [
        f"{field.name.replace('_', ' ')} {_shown(getattr(different, field.name))}, "
        f"not {_shown(getattr(chosen, field.name))}"
        for field in fields(chosen)
        if getattr(chosen, field.name) != getattr(different, field.name)
    ]
    return "; ".join(differing) or "the same network, trained on other data"


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def original_presets() -> dict[str, NetworkConfig]:
    """The presets that networks of the original implementations have."""
    return {name: config for name, config in presets().items() if family_of(config).from_original}


def fitting_presets(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the presets that a network of the originals has exactly the entries and shapes of."""
    shapes = {name: value.to("meta") for name, value in state.items()}
    found = []
    for preset, config in original_presets().items():
        try:
            _from_original(shapes, config)
        except WeightsError:
            continue
        found.append(preset)
    return found


def _from_original(
    state: Mapping[str, Tensor], preset: NetworkConfig
) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """A preset with what it leaves to the file, and its network's state dict."""
    family = family_of(preset)
    assert family.from_original is not None
    config = family.fitted(preset, state)
    return config, family.from_original(state, config)


def _advice(state: Mapping[str, Tensor], error: WeightsError) -> str:
    fitting = fitting_presets(state)
    if fitting:
        return f"they fit {', '.join(fitting)}; pass that as --preset"
    lines = error.differences if isinstance(error, EntriesError) else (str(error),)
    more = f" and {len(lines) - _LISTED} more differences" if len(lines) > _LISTED else ""
    return f"they fit no preset ({'; '.join(lines[:_LISTED])}{more}); import networks of the published sizes"


def _reason(error: Exception) -> str:
    if "weights_only" in str(error) or "Unsupported" in str(error):
        return "it holds more than tensors and numbers, which could run code"
    if isinstance(error, OSError | RuntimeError) and str(error):
        return str(error).splitlines()[0].split(". ")[0].rstrip(".")
    return "it is damaged, or of another kind"
