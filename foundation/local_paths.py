"""URLs among the paths that a user passes, and their refusal where only a local path will do."""

from __future__ import annotations

import re
from pathlib import Path

from foundation.errors import TesseraError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one letter is a drive of Windows


class UrlError(TesseraError, ValueError):
    """A URL stands where only a local path will do."""


def url_in(place: Path | str) -> str | None:
    """The URL that a path argument holds, such as `s3://bucket/run`; None for a local path.

    A `Path` has lost slashes, and gets them back. A local folder called `s3:` is reached by its absolute path.
    """
    text = str(place)
    found = _SCHEME.match(text)
    if found is None or text.startswith("/", found.end()):
        return None if found is None else text
    lost = "//" if found[0] == "file:/" else "/"
    return found[0] + lost + text[found.end() :]


def local_path(place: Path | str) -> Path:
    """A path argument of what is read and written at local paths only.

    Raises:
        UrlError: if it is a URL.
    """
    url = url_in(place)
    if url is not None:
        raise UrlError(
            f"{url}: is a URL, where only a local path will do; copy the files or mount the storage as a folder, and "
            "pass that path (only the run directory of tessera reconstruct may be a URL)"
        )
    return Path(place)
