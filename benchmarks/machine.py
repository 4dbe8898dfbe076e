"""What a benchmark's figures were measured on."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path

import psutil
import torch

from convonet.precision import cpu_has_bf16_units


def machine() -> dict[str, object]:
    """Processor, memory, versions and date, for the head of a benchmark's JSON."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return {
        "date": datetime.date.today().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "bf16_units": cpu_has_bf16_units(),
        "torch": torch.__version__,
    }


def tell(report: dict[str, object], output: Path | None) -> None:
    """Print a report as JSON, and write it to a file if one is named."""
    text = json.dumps(report, indent=2)
    print(text)
    if output:
        output.write_text(text + "\n")
