"""Where the real scans and meshes live; tests that want one skip when it is absent."""

import os
from pathlib import Path

import pytest


def shared_data(relative: str) -> Path:
    """Path of a real data file, or skip the calling test with the reason."""
    root = Path(os.environ.get("TESSERA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"real data {relative} is not at {root}; set TESSERA_DATA to its folder")
    return path
