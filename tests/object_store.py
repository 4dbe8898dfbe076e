"""A real S3-compatible server on loopback, in a process of its own: moto's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pyarrow.fs as fs

SERVE = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def object_store() -> Iterator[str]:
    """An object store with one bucket, to which this process and its children have the keys.

    Yields:
        A URL with a place for a folder's name: `url.format("run")`.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        with mock.patch.dict(os.environ, CREDENTIALS):
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "")
            host, port = next(line.split() for line in lines if line.startswith("127."))
            query = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
            filesystem, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}{query}&allow_bucket_creation=true")
            filesystem.create_dir(BUCKET)
            yield f"s3://{BUCKET}/{{}}{query}"
    finally:
        server.communicate("")
