"""URLs are recognized as they are typed and as `Path` leaves them, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.local_paths import UrlError, local_path, url_in

URLS = [
    "s3://bucket/run",
    "gs://b",
    "file:///tmp/run",
    "s3://b/run?endpoint_override=localhost:5000&scheme=http",
]


@pytest.mark.parametrize("url", URLS)
def test_urls_survive_being_a_path(url: str) -> None:
    assert url_in(url) == url_in(Path(url)) == url
    with pytest.raises(UrlError, match="is a URL, where only a local path will do") as caught:
        local_path(Path(url))
    assert str(caught.value).startswith(f"{url}: ")


@pytest.mark.parametrize("path", ["run", "/tmp/s3:/run", "C:/runs", "a:b/c", "out/demo", "https", "~/x://y"])
def test_local_paths_are_none(path: str) -> None:
    assert url_in(path) is None
    assert local_path(path) == Path(path)
