"""The points of a scan, decoded in a process of their own where a damaged file could crash the decoder."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.isolation import CallCrashedError, CallLimits, IsolatedProcess
from preprocessing.errors import ScanError
from preprocessing.scan_files import NATIVE_SUFFIXES, ScanChunk, open_scan

CHUNK_POINTS = 1_000_000
UNLIMITED = CallLimits(timeout_s=math.inf, memory_bytes=sys.maxsize)  # a scan may be large and its disk slow


def scan_chunks(scan: Path) -> Iterator[ScanChunk]:
    """The points of a scan in file order, at most `CHUNK_POINTS` at a time.

    Raises:
        ScanError: as `open_scan` and its chunks, and where the file makes its decoder crash.
    """
    if scan.suffix.lower() not in NATIVE_SUFFIXES:
        yield from open_scan(scan, CHUNK_POINTS).chunks()
        return
    process = IsolatedProcess(UNLIMITED)
    try:
        for chunk in process.stream(_decode, scan):
            if isinstance(chunk, ScanError):
                raise chunk
            yield chunk
    except CallCrashedError as error:
        raise ScanError(
            f"{scan}: its decoder {error}; the file may be damaged: copy or export it again"
        ) from error
    finally:
        process.close()


def _decode(scan: Path) -> Iterator[ScanChunk | ScanError]:
    """Runs in the isolated process; what is wrong with the scan comes as the last item, in its own words."""
    try:
        yield from open_scan(scan, CHUNK_POINTS).chunks()
    except ScanError as error:
        yield error
