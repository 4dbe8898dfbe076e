"""The points of a scan, decoded in a process of their own where a damaged file could crash the decoder."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from foundation.local_paths import local_path
from pipeline.isolation import CallCrashedError, CallLimits, IsolatedProcess
from pipeline.mesh_reading import mesh_limits
from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk, ScanOptions, ScanReader, open_scan, scan_kind

CHUNK_POINTS = 1_000_000
# A scan may be large and its disk slow, but no decoder needs more than its chunk of memory.
LIMITS = CallLimits(timeout_s=math.inf, memory_bytes=2 * 2**30)
STREAMED_KINDS = (".las", ".laz", ".e57")  # decoded by libraries that damage could crash
WHOLE_KINDS = (".glb", ".stl", ".off")  # read whole, as meshes, so that their size counts
NATIVE_KINDS = STREAMED_KINDS + WHOLE_KINDS


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
        with decoder() as process:
            for file in self.files:
                yield from scan_chunks(file, self.options, process)


def scan_set(scans: Path | str | Sequence[Path | str], options: ScanOptions | None = None) -> ScanSet:
    """The files that paths and patterns such as `site/*.laz` name, without repetition.

    Raises:
        ScanError: if a file does not exist or a pattern matches nothing.
    """
    given = [scans] if isinstance(scans, str | Path) else list(scans)
    files: dict[Path, Path] = {}
    for path in map(local_path, given):
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


@contextmanager
def decoder() -> Iterator[IsolatedProcess]:
    """A process that decodes files one after the other; it starts with the first one that needs it."""
    process = IsolatedProcess(LIMITS)
    try:
        yield process
    finally:
        process.close()


def scan_facts(scan: Path, options: ScanOptions, process: IsolatedProcess | None = None) -> ScanFacts:
    """What a scan file says ahead of its points.

    Args:
        process: a `decoder` to use; one of its own by default.

    Raises:
        ScanError: as `open_scan`, and where the file makes its decoder crash.
    """
    if scan_kind(scan) not in NATIVE_KINDS:
        return _facts(open_scan(scan, CHUNK_POINTS, options))
    (facts,) = _isolated(scan, _read_facts, options, process)
    assert isinstance(facts, ScanFacts)
    return facts


def scan_chunks(
    scan: Path, options: ScanOptions | None = None, process: IsolatedProcess | None = None
) -> Iterator[ScanChunk]:
    """The points of a scan file in file order, at most `CHUNK_POINTS` at a time.

    Args:
        process: a `decoder` to use; one of its own by default.

    Raises:
        ScanError: as `open_scan` and its chunks, and where the file makes its decoder crash.
    """
    options = options or ScanOptions()
    if scan_kind(scan) not in NATIVE_KINDS:
        yield from open_scan(scan, CHUNK_POINTS, options).chunks()
        return
    yield from _isolated(scan, _decode, options, process)


def _isolated(scan: Path, work: Any, options: ScanOptions, process: IsolatedProcess | None) -> Iterator[Any]:
    """What a generator function yields for a scan in a process of its own."""
    limits = LIMITS if scan_kind(scan) in STREAMED_KINDS else mesh_limits(scan, LIMITS.timeout_s)
    is_own = process is None or limits != LIMITS
    used = IsolatedProcess(limits) if process is None or is_own else process
    try:
        for item in used.stream(work, scan, options):
            if isinstance(item, ScanError):
                raise item
            yield item
    except CallCrashedError as error:
        raise ScanError(
            f"{scan}: its decoder {error}; the file may be damaged: copy or export it again"
        ) from error
    finally:
        if is_own:
            used.close()


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
    said = {field.name: getattr(reader, field.name) for field in fields(ScanFacts)}
    return ScanFacts(**said | {"columns": dict(reader.columns)})
