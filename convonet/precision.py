"""Which number format a device computes networks in."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from foundation.errors import SettingError


def cpu_has_bf16_units() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is the faster choice on `device`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16_units()


def network_precision(device: torch.device, enabled: bool = True) -> AbstractContextManager[object]:
    """Autocast context: bfloat16 where the device gains from it, float32 otherwise."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and has_fast_bf16(device))


def check_device(name: str) -> None:
    """Refuse a misspelled device before anything starts.

    Raises:
        SettingError: if the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"device must be auto, cpu or cuda, not {name!r}")


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` to a device.

    Raises:
        SettingError: if CUDA is asked for and absent, or the name is unknown.
    """
    check_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device cuda was asked for, but torch sees no GPU; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def relu_(x: Tensor) -> Tensor:
    """ReLU in place, without a graph.

    A bfloat16 is negative exactly where its bits are a negative int16, and torch's integer maximum is three
    times as fast on a CPU as its bfloat16 one, which converts to float32 and back. A NaN whose sign bit is set
    becomes 0 there.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        x.view(torch.int16).clamp_min_(0)
        return x
    return x.relu_()
