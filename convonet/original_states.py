"""State dicts of the original repositories onto our networks; every difference is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from convonet.errors import EntriesError

Shape = tuple[int, ...]

COUNTER = ".num_batches_tracked"
"""Batch norm's step counter: no computation with a constant momentum reads it, and PyTorch before 0.4.1
did not store it, so that an absent one is no defect."""


def is_counter(name: str) -> bool:
    """Whether an entry is a batch norm's step counter."""
    return name.endswith(COUNTER)


def check_entries(expected: Mapping[str, Shape], state: Mapping[str, Tensor], source: str, cure: str) -> None:
    """Refuse a state dict that is not exactly the expected one; absent step counters are let pass.

    Args:
        expected: shape of each entry that must be there.
        state: the entries found.
        source: what the state dict is, for the message.
        cure: what the user can do about it.

    Raises:
        EntriesError: listing missing, unexpected and wrongly shaped entries.
    """
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in state]
    missing = [entry for entry in missing if not is_counter(entry.split(" ")[0])]
    unexpected = [f"{name} {tuple(value.shape)}" for name, value in state.items() if name not in expected]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "wrongly shaped": misshapen}
    faults = "; ".join(f"{kind}: {', '.join(entries)}" for kind, entries in kinds.items() if entries)
    if faults:
        differences = tuple(f"{kind} {entry}" for kind, entries in kinds.items() for entry in entries)
        raise EntriesError(f"{source} does not fit: {faults}. {cure}", differences)


def is_legacy(state: Mapping[str, Tensor]) -> bool:
    """Whether conditional batch norms are kept as linear layers (`fc_gamma`), not convolutions (`conv_gamma`)."""
    return any(".fc_gamma." in name for name in state)


def renamed(name: str, table: Iterable[tuple[str, str]]) -> str:
    """The original's name of an entry: every rule (pattern of ours, the original's) that matches, in this order."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def decoder_name(name: str, legacy: bool) -> str:
    """The originals' name of an entry of a decoder: ONet's and OFlow's have the same layers."""
    name = re.sub(r"^decoder\.(blocks\.\d+\.)?norm", r"decoder.\1bn", name).replace(".batch_norm.", ".bn.")
    affine = "fc" if legacy else "conv"
    return name.replace(".scale.", f".{affine}_gamma.").replace(".shift.", f".{affine}_beta.")


def decoder_shape(name: str, shape: Shape) -> Shape:
    """Its shape in a normalized decoder: layers over query points are convolutions of width 1, those of codes not.

    Args:
        name: the original's.
        shape: ours.
    """
    is_linear = re.search(r"\.(fc_z|fc_c|fc_gamma|fc_beta)\.", name)
    return (*shape, 1) if len(shape) == 2 and not is_linear else shape


def map_original(
    state: Mapping[str, Tensor],
    build: Callable[[], nn.Module],
    original_entry: Callable[[str, Shape], tuple[str, Shape]],
) -> dict[str, Tensor]:
    """Map a state dict of an original onto ours: same numbers, our names and shapes.

    Args:
        state: entry `model` of one of the original's checkpoints.
        build: makes our network; it is only asked for its entries.
        original_entry: the original's name and shape of one of our entries.

    Returns:
        A complete state dict for the network, of copies; absent step counters are 0.

    Raises:
        EntriesError: listing missing, unexpected and wrongly shaped entries by the original's names.
    """
    with torch.device("meta"):
        own = build().state_dict()
    entries = {name: original_entry(name, tuple(value.shape)) for name, value in own.items()}
    expected = dict(entries.values())
    assert len(expected) == len(own), "two of our entries have one original name"
    cure = "Choose the preset or configuration it was trained with."
    check_entries(expected, state, "the original's state dict", cure)
    return {
        name: state[original].detach().reshape(own[name].shape).clone()
        if original in state
        else torch.zeros(own[name].shape, dtype=own[name].dtype)
        for name, (original, _) in entries.items()
    }
