"""A missing system library is one line with the command that cures it."""

import sys

import pytest

from preprocessing.errors import GeometryError
from preprocessing.native import SYSTEM_LIBRARIES, load_open3d


def test_without_open3d_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    load_open3d.cache_clear()
    with pytest.raises(GeometryError, match="apt-get install") as error:
        load_open3d()
    assert all(library in str(error.value) for library in SYSTEM_LIBRARIES)
    assert len(str(error.value).splitlines()) == 1
    monkeypatch.undo()
    load_open3d.cache_clear()
