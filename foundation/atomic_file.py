"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"  # in the names of what is still being written


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write to: it becomes `path` when the block ends, and vanishes if the block fails.

    The name is new each time, so that no neighbor is overwritten and two writers do not meet. What is written is on
    the disk before it appears, with the permissions of any new file of the user, whatever the block makes of them.

    Args:
        path: the file to write; its folder is made if it is missing.

    Raises:
        OSError: if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
        yield partial
        partial.chmod(mode)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
