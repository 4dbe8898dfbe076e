"""The suite's own limit: what hangs is shown and ended, even where Python has no say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[1] / "pyproject.toml"
HANGING = """
import ctypes

def test_waits_for_itself():
    library = ctypes.PyDLL(None)  # keeps the interpreter's lock, so that no Python code runs any more
    mutex = ctypes.create_string_buffer(128)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""


def test_a_hang_in_native_code_is_shown_and_ends_the_run(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-c", str(CONFIG), "--rootdir", str(tmp_path), str(tmp_path)]
    shorter = ["-p", "no:cacheprovider", "-o", "timeout=1", "-o", "faulthandler_timeout=2"]
    ended = subprocess.run([*command, *shorter], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "test_waits_for_itself" in ended.stderr
    assert 0 < float(pytestconfig.getini("timeout")) < float(pytestconfig.getini("faulthandler_timeout"))
