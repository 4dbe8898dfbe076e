"""No command writes over what it reads: checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from foundation.local_paths import local_path
from pipeline.errors import OverwritingError

STORE_MARK = "zarr.json"  # of a dataset, in which nothing else may lie


def refuse_overwriting(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Check that no output is an input, by whatever spelling of its path or link.

    An output may lie inside a folder that is read, but not be a file that is there already, nor lie in a dataset.

    Raises:
        OverwritingError: if one is; names both.
        UrlError: if one of these paths is a URL.
    """
    read = [local_path(path) for path in inputs if path is not None]
    written = [local_path(path) for path in outputs if path is not None]
    for output in written:
        for path in read:
            if _is_same(output, path):
                raise OverwritingError(
                    f"{output}: is also read by this command ({path}); choose another output, nothing was written"
                )
            is_inside = path.is_dir() and path.resolve() in output.resolve().parents
            if is_inside and (output.is_file() or (path / STORE_MARK).is_file()):
                raise OverwritingError(
                    f"{output}: belongs to the folder that this command reads ({path}); choose another output, "
                    "nothing was written"
                )


def _is_same(first: Path, second: Path) -> bool:
    if first.resolve() == second.resolve():
        return True
    try:
        return first.samefile(second)  # hard links, and file systems that ignore case
    except OSError:  # one does not exist yet
        return False
