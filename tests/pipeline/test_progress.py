"""Progress without a terminal: whole lines, now and then."""

from __future__ import annotations

import pytest

from pipeline import progress
from pipeline.progress import Progress


def test_a_log_gets_whole_lines_and_a_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress("fields", 5, "tile", done=2) as shown:
        shown.update(1, "1 rejected")
        shown.update(2)
    lines = capsys.readouterr().err.split("\n")
    assert lines[0].startswith("fields: 3 of 5 tiles, 0 s, about 0 s left, 1 rejected")
    assert lines[-2:] == ["fields: 5 of 5 tiles, 0 s", ""]
    assert "\r" not in "".join(lines)


def test_a_quiet_stage_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("fields", 1, "tile", is_shown=False) as shown:
        shown.update()
    assert capsys.readouterr().err == ""
