"""Compare the entries of a state dict with those a network needs, and name every difference."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from convonet.errors import WeightsError

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
        WeightsError: listing missing, unexpected and wrongly shaped entries.
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
        raise WeightsError(f"{source} does not fit: {faults}. {cure}")
