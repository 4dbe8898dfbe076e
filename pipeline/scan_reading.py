"""The points of a scan, decoded in a process of their own where a damaged file could crash the decoder."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.isolation import CallCrashedError, CallLimits, IsolatedProcess
from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk, ScanOptions, ScanReader, open_scan, scan_kind

CHUNK_POINTS = 1_000_000
# A scan may be large and its disk slow, but no decoder needs more than its chunk of memory.
LIMITS = CallLimits(timeout_s=math.inf, memory_bytes=4 * 2**30)
NATIVE_KINDS = (
    ".las",
    ".laz",
    ".e57",
    ".glb",
    ".stl",
    ".off",
)  # decoded by libraries that damage could crash


@dataclass(frozen=True)
class ScanSet:
    """One scan: a file, or several that are read as one, each with its own poses and stations.

    Attributes:
        files: in the order in which they are read; at least one.
        options: how to read them.
    """

    files: tuple[Path, ...]
    options: ScanOptions = field(default_factory=ScanOptions)

    @property
    def name(self) -> str:
        """What to call the scan in messages."""
        more = len(self.files) - 1
        return self.files[0].name + (f" and {more} more file{'s' * (more > 1)}" if more else "")

    def chunks(self) -> Iterator[ScanChunk]:
        """The points of all files, one after the other; see `scan_chunks`."""
        for file in self.files:
            yield from scan_chunks(file, self.options)


def scan_set(scans: Path | str | Sequence[Path | str], options: ScanOptions | None = None) -> ScanSet:
    """The files that paths and patterns such as `site/*.laz` name, without repetition.

    Raises:
        ScanError: if a file does not exist or a pattern matches nothing.
    """
    given = [scans] if isinstance(scans, str | Path) else list(scans)
    files: dict[Path, Path] = {}
    for path in map(Path, given):
        found = [path]
        if not path.exists() and glob.has_magic(str(path)):
            names = glob.glob(str(path), recursive=True)  # noqa: PTH207 (patterns may be absolute)
            found = [Path(name) for name in sorted(names)]
            if not found:
                raise ScanError(f"{path}: no file matches this pattern")
        for file in found:
            if not file.exists():
                raise ScanError(f"{file}: no such file")
            files.setdefault(file.resolve(), file)
    if not files:
        raise ScanError("no scan is named; pass one or several files")
    return ScanSet(tuple(files.values()), options or ScanOptions())


@dataclass(frozen=True)
class ScanFacts:
    """What a file says of its scan ahead of the points; see `ScanReader`."""

    format: str
    count: int | None
    has_normals: bool
    has_colors: bool
    has_directions: bool
    columns: dict[str, str]
    stations: tuple[tuple[float, float, float], ...]
    crs: str | None
    crs_unit: str | None


def scan_facts(scan: Path, options: ScanOptions) -> ScanFacts:
    """What a scan file says ahead of its points.

    Raises:
        ScanError: as `open_scan`, and where the file makes its decoder crash.
    """
    if scan_kind(scan) not in NATIVE_KINDS:
        return _facts(open_scan(scan, CHUNK_POINTS, options))
    (facts,) = _isolated(scan, _read_facts, options)
    assert isinstance(facts, ScanFacts)
    return facts


def scan_chunks(scan: Path, options: ScanOptions | None = None) -> Iterator[ScanChunk]:
    """The points of a scan file in file order, at most `CHUNK_POINTS` at a time.

    Raises:
        ScanError: as `open_scan` and its chunks, and where the file makes its decoder crash.
    """
    options = options or ScanOptions()
    if scan_kind(scan) not in NATIVE_KINDS:
        yield from open_scan(scan, CHUNK_POINTS, options).chunks()
        return
    yield from _isolated(scan, _decode, options)


def _isolated(scan: Path, work: Any, options: ScanOptions) -> Iterator[Any]:
    """What a generator function yields for a scan in a process of its own."""
    process = IsolatedProcess(LIMITS)
    try:
        for item in process.stream(work, scan, options):
            if isinstance(item, ScanError):
                raise item
            yield item
    except CallCrashedError as error:
        raise ScanError(
            f"{scan}: its decoder {error}; the file may be damaged: copy or export it again"
        ) from error
    finally:
        process.close()


def _decode(scan: Path, options: ScanOptions) -> Iterator[ScanChunk | ScanError]:
    """Runs in the isolated process; what is wrong with the scan comes as the last item, in its own words."""
    try:
        yield from open_scan(scan, CHUNK_POINTS, options).chunks()
    except ScanError as error:
        yield error


def _read_facts(scan: Path, options: ScanOptions) -> Iterator[ScanFacts | ScanError]:
    """Runs in the isolated process."""
    try:
        yield _facts(open_scan(scan, CHUNK_POINTS, options))
    except ScanError as error:
        yield error


def _facts(reader: ScanReader) -> ScanFacts:
    return ScanFacts(
        reader.format,
        reader.count,
        reader.has_normals,
        reader.has_colors,
        reader.has_directions,
        dict(reader.columns),
        reader.stations,
        reader.crs,
        reader.crs_unit,
    )
