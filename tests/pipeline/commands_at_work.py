"""The command line as a process of its own, for tests of what happens to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


class Command:
    """`tessera ARGUMENTS` at work, with a Ray of its own, in a process group of its own."""

    def __init__(self, *arguments: object) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
            cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.stderr: list[str] = []
        self.stdout: list[str] = []
        self._readers = [
            threading.Thread(target=lambda: self.stderr.extend(self.process.stderr)),
            threading.Thread(target=lambda: self.stdout.extend(self.process.stdout)),
        ]
        for reader in self._readers:
            reader.start()

    def family(self) -> list[psutil.Process]:
        """It and all its descendants."""
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def wait_for_process(self, words: str, timeout_s: float = 120) -> None:
        """Until a descendant's command line holds these words."""
        deadline = time.monotonic() + timeout_s
        while not any(words in " ".join(command_line(process)) for process in self.family()):
            assert self.process.poll() is None, "".join(self.stderr)
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, timeout_s: float = 240) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        return code

    @property
    def errors(self) -> list[str]:
        """What it printed on stderr beside its progress."""
        return [line.rstrip() for line in self.stderr if not _is_progress(line)]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def alive(processes: list[psutil.Process]) -> list[str]:
    """Names of those that live."""
    names = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                names.append(process.name())
        except psutil.Error:
            continue
    return names


def _is_progress(line: str) -> bool:
    return (" of " in line and line.rstrip().endswith((" s", " s left"))) or not line.strip()
