"""The folder for the files of a private Ray: gone with it, at the latest when the next one starts."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "ray-"  # short: the paths of sockets below it are limited to about 107 bytes
LOCK = "tessera.lock"
UNLOCKED_S = 60.0  # between making a folder and locking it


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A new folder beside Ray's usual one, which holds it for the duration of a block.

    Its lock ends with this process, however that ends; so what killed commands have left is known, and removed first.

    Raises:
        OSError: if the folder for temporary files cannot be written to.
    """
    for left in abandoned_ray_folders():
        shutil.rmtree(left, ignore_errors=True)
    root = _root()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        hidden = folder / f".{LOCK}"  # under its name it appears locked
        with hidden.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            hidden.replace(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _root() -> Path:
    from ray._common.utils import get_default_ray_temp_dir  # brings all of Ray, which small scenes do without

    return Path(get_default_ray_temp_dir()).parent  # type: ignore[no-untyped-call]


def abandoned_ray_folders() -> list[Path]:
    """Folders of private Rays of this user whose command does not live any more, sorted."""
    root = _root()
    return [folder for folder in sorted(root.glob(f"{PREFIX}????????")) if _is_abandoned(folder)]


def _is_abandoned(folder: Path) -> bool:
    try:
        status = folder.lstat()
        if status.st_uid != os.getuid() or not folder.is_dir() or folder.is_symlink():
            return False
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except FileNotFoundError:  # not locked yet, or not ours
        hidden = folder / f".{LOCK}"
        return hidden.exists() and time.time() - status.st_mtime > UNLOCKED_S
    except OSError:  # such as that of the lock, which another process holds
        return False
