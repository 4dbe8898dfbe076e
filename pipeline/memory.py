"""How much memory a stage takes: the driver, its Ray workers and Ray itself together."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil


class MemoryWatch:
    """Samples the resident memory of this process and its descendants, counting shared pages once."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            total = 0
            me = psutil.Process()
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    info = process.memory_info()
                    total += info.rss - getattr(info, "shared", 0)
            self.peak_bytes = max(self.peak_bytes, total)
