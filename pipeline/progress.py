"""Progress of a stage: a bar on a terminal, a line now and then where stderr is a file or a job's log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Counts finished units and shows them on stderr.

    Args:
        title: of the stage.
        total: units in all.
        unit: what one is called.
        done: units that were finished before.
        is_shown: whether to show anything.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0, is_shown: bool = True) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done, self._before, self._shown = done, done, -1
        self._started = self._last_line = time.monotonic()
        is_terminal = sys.stderr.isatty()
        self._prints_lines = is_shown and not is_terminal
        self._bar = tqdm(
            total=total, initial=done, unit=unit, desc=title, disable=not (is_shown and is_terminal)
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if kind is None and self._total and self._shown != self._done:
            self._line()

    def update(self, count: int = 1, note: str = "") -> None:
        """Count units that are finished; `note` is shown beside them."""
        self._done += count
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line(note)

    def _line(self, note: str = "") -> None:
        if not self._prints_lines:
            return
        self._last_line, self._shown = time.monotonic(), self._done
        elapsed = self._last_line - self._started
        words = f"{self._title}: {self._done} of {self._total} {self._unit}s, {elapsed:.0f} s"
        made = self._done - self._before
        if made and self._done < self._total:
            words += f", about {elapsed / made * (self._total - self._done):.0f} s left"
        print(words + (f", {note}" if note else ""), file=sys.stderr, flush=True)
