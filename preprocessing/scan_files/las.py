"""LAS and LAZ through laspy; coordinates are scaled in double precision."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk
from preprocessing.scan_files.colors import ColorScale, decide_scale
from preprocessing.scan_files.names import AXES, COLOR_NAMES
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import is_gzipped, rows_at_once, truncated

RECORD_BYTES = 54  # of a variable length record without its content
SAMPLE_BLOCKS, SAMPLE_ROWS = 16, 8192  # fewer places than elsewhere: each decompresses a whole chunk of a LAZ
_RECORDS = struct.Struct("<94xHII")  # size of the header, start of the points, number of records
_LEGACY = struct.Struct("<25xB81xI")  # minor version, number of points as it was before 1.4
_UNITS = {9001: "m", 9002: "ft", 9003: "us-ft"}  # EPSG
# GeoTIFF
_MODEL, _CITATION, _GEOGRAPHIC, _PROJECTED, _PROJECTED_CITATION, _LENGTH = 1024, 1026, 2048, 3072, 3073, 3076
_IS_GEOGRAPHIC = 2
_USER_DEFINED = 32767  # no code, the citation says it in words
_EXTENDED = struct.Struct("<2x16sHQ32x")  # user, number and size of an extended record
_EXTENDED_START = struct.Struct("<25xB209xQI")  # minor version, place and number of the extended records
_PROJECTION_USER = "LASF_Projection"
_LASZIP_USER, _LASZIP_LAYERED = b"laszip encoded", 3
# Of the items of a point in LAZ of LAS 1.4; of extra bytes (14), one each.
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
MOST_EXTENDED, LARGEST_EXTENDED = 1000, 1 << 20  # looked at; bytes of one that can be a reference system


@dataclass(frozen=True)
class _Facts:
    """What a LAS header says."""

    count: int
    start: int
    row_bytes: int
    is_compressed: bool
    names: frozenset[str]
    layers: int  # of a compressed chunk whose sizes stand before it; 0 where there are none
    crs: str | None
    crs_unit: str | None


def _laspy(path: Path) -> Any:
    try:
        import laspy
    except ImportError as error:
        raise ScanError(
            f"{path}: LAS and LAZ need two more packages; run: pip install laspy lazrs"
        ) from error
    return laspy


def open_las(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open a LAS or LAZ point cloud; see `open_scan`.

    Points marked as withheld, those of the classes to drop (noise by default) and of other returns than asked
    for are left out and counted.
    """
    _laspy(path)
    if is_gzipped(path):
        raise ScanError(f"{path}: LAS files are read unpacked; run gunzip on it first, or save it as LAZ")
    _check_records(path)
    try:
        with _opened(path) as file:
            facts = _facts(file, path)
    except ScanError:
        raise
    except Exception as error:  # laspy and its decoders raise many kinds
        raise ScanError(
            f"{path}: is not a readable LAS/LAZ file ({_reason(error)}); copy or export it again"
        ) from error
    if facts.layers:
        _check_layers(path, facts)
    elif not facts.is_compressed:
        present = max(0, path.stat().st_size - facts.start) // max(1, facts.row_bytes)
        if present < facts.count:
            raise truncated(path, facts.count, present)
    if facts.crs_unit == "degrees":
        raise ScanError(
            f"{path}: its coordinates are geographic degrees ({facts.crs}), not meters; project it first, for example "
            "to its UTM zone with: pdal translate in.laz out.laz reprojection --filters.reprojection.out_srs=EPSG:326xx"
        )
    scale = _color_scale(path, facts)
    return ScanReader(
        path,
        "LAZ" if facts.is_compressed else "LAS",
        facts.count,
        lambda: _chunks(path, facts, scale, chunk_points, options),
        has_colors=scale is not None,
        columns={name: name for name in AXES + (COLOR_NAMES if scale is not None else ())},
        crs=facts.crs,
        crs_unit=facts.crs_unit,
    )


def _check_records(path: Path) -> None:
    """Refuse a header whose variable length records cannot lie before the points: laspy would make billions of them."""
    with path.open("rb") as file:
        head = file.read(_RECORDS.size)
    if len(head) == _RECORDS.size:
        header_bytes, points_start, records = _RECORDS.unpack(head)
        room = min(points_start, path.stat().st_size)
        if records and header_bytes + RECORD_BYTES * records > room:
            raise ScanError(
                f"{path}: is not a readable LAS/LAZ file (the header promises {records:,} records before the points); "
                "copy or export it again"
            )


def _check_layers(path: Path, facts: _Facts) -> None:
    """Refuse compressed chunks with layers that pass the end of the file: the decoder would make room for them.

    A chunk is one plain point, the number of its points, the sizes of its layers, and these.
    """
    sizes = struct.Struct(f"<{facts.row_bytes}xI{facts.layers}I")
    end = path.stat().st_size
    done, place = 0, facts.start + 8
    with path.open("rb") as file:
        file.seek(facts.start)
        table = int.from_bytes(file.read(8), "little", signed=True)
        if place <= table < end:
            end = table
        while place < end and done < facts.count:
            file.seek(place)
            head = file.read(sizes.size)
            points, *layers = sizes.unpack(head) if len(head) == sizes.size else (0, end)
            place += sizes.size + sum(layers)
            if place > end:
                raise _damaged(path, facts.count, done, "the data ends early")
            done += points


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """laspy's reader, with the number of points that the header really means: some writers of version 1.4 leave
    the new count at 0 and fill only the old one."""
    with path.open("rb") as raw:
        head = raw.read(_LEGACY.size)
    with _laspy(path).open(path, read_evlrs=False) as file:
        if not file.header.point_count and len(head) == _LEGACY.size:
            minor, legacy = _LEGACY.unpack(head)
            if minor >= 4:
                file.header.point_count = legacy
        yield file


def _facts(file: Any, path: Path) -> _Facts:
    header = file.header
    crs, unit = _reference_system([*header.vlrs, *_extended_records(path)])
    return _Facts(
        int(header.point_count),
        int(header.offset_to_point_data),
        int(header.point_format.size),
        bool(header.are_points_compressed),
        frozenset(header.point_format.dimension_names),
        _layers(header),
        crs,
        unit,
    )


def _layers(header: Any) -> int:
    """Layers of each compressed chunk, from the record of the compressor: number and list of a point's items."""
    for record in header.vlrs:
        if record.user_id.encode() == _LASZIP_USER:
            data = record.record_data_bytes()
            compressor, items = (int.from_bytes(data[at : at + 2], "little") for at in (0, 32))
            if compressor != _LASZIP_LAYERED:
                return 0
            parts = struct.iter_unpack("<3H", data[34 : 34 + 6 * items])
            return sum(size if kind == 14 else _LAYERS.get(kind, 0) for kind, size, _ in parts)
    return 0


def _extended_records(path: Path) -> list[Any]:
    """The records of a reference system that version 1.4 keeps behind the points; others are passed over unread."""
    from laspy.vlrs.known import vlr_factory

    found: list[Any] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_EXTENDED_START.size)
        if len(head) < _EXTENDED_START.size:
            return found
        minor, place, records = _EXTENDED_START.unpack(head)
        for _ in range(min(records, MOST_EXTENDED) if minor >= 4 else 0):
            if not 0 < place <= size - _EXTENDED.size:
                break
            file.seek(place)
            user, number, length = _EXTENDED.unpack(file.read(_EXTENDED.size))
            place += _EXTENDED.size + length
            is_projection = user.split(b"\0")[0] == _PROJECTION_USER.encode()
            if is_projection and length <= LARGEST_EXTENDED and place <= size:
                found.append(vlr_factory(_laspy(path).VLR(_PROJECTION_USER, number, "", file.read(length))))
    return found


def _citation(records: list[Any], keys: Any) -> str | None:
    """What GeoTIFF keys call their reference system, in words."""
    texts = [record for record in records if getattr(record, "record_id", 0) == 34737]
    for wanted in (_PROJECTED_CITATION, _CITATION):
        for key in keys:
            if int(key.id) == wanted and texts:
                text = texts[0].record_data_bytes().decode("latin-1")
                part = text[int(key.value_offset) : int(key.value_offset) + int(key.count)]
                return part.split("|")[0].strip("\0 ") or None
    return None


def _reference_system(records: list[Any]) -> tuple[str | None, str | None]:
    """The coordinate reference system of the header's records, and its unit (`degrees` if it is geographic)."""
    for record in records:
        text = getattr(record, "string", None)
        if text and record.record_id == 2112:
            wkt = str(text).strip("\0 ")
            head = wkt.upper().lstrip()
            if head.startswith(("GEOGCS", "GEOGCRS", "GEODCRS")):
                return wkt, "degrees"
            lower = wkt.lower()
            unit = "us-ft" if "us survey foot" in lower or "foot_us" in lower else None
            unit = unit or ("ft" if '"foot"' in lower or '"international foot"' in lower else "m")
            return wkt, unit
    for record in records:
        keys = getattr(record, "geo_keys", None)
        if keys:
            values = {int(key.id): int(key.value_offset) for key in keys}
            if values.get(_PROJECTED) == _USER_DEFINED:
                return _citation(records, keys), _UNITS.get(values.get(_LENGTH, 0))
            if _PROJECTED in values:
                return f"EPSG:{values[_PROJECTED]}", _UNITS.get(values.get(_LENGTH, 0))
            if values.get(_MODEL) == _IS_GEOGRAPHIC or _GEOGRAPHIC in values:
                return f"EPSG:{values.get(_GEOGRAPHIC, 4326)}", "degrees"
    return None, None


def _color_scale(path: Path, facts: _Facts) -> ColorScale | None:
    """One scale for the whole file: some writers store 8 bits where the format wants 16."""
    if not all(name in facts.names for name in COLOR_NAMES) or not facts.count:
        return None
    rows = rows_at_once(facts.row_bytes, SAMPLE_ROWS)
    whole = facts.count <= SAMPLE_BLOCKS * rows
    last = max(0, facts.count - rows)
    starts = range(0, facts.count, rows) if whole else np.linspace(0, last, SAMPLE_BLOCKS).astype(int)
    shades: list[list[NDArray[Any]]] = []
    try:
        with _opened(path) as file:
            for start in starts:
                if not whole:
                    file.seek(int(start))
                points = file.read_points(rows)
                shades.append([np.asarray(points[name]) for name in COLOR_NAMES])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise _damaged(path, facts.count, 0, _reason(error)) from error
    channels = [np.concatenate(parts) for parts in zip(*shades, strict=True)]
    return decide_scale(channels, "whole")


def _chunks(
    path: Path, facts: _Facts, scale: ColorScale | None, chunk_points: int, options: ScanOptions
) -> Iterator[ScanChunk]:
    done = 0
    try:
        with _opened(path) as file:
            for points in file.chunk_iterator(rows_at_once(facts.row_bytes, chunk_points)):
                columns = {axis: np.asarray(getattr(points, axis)) for axis in AXES}
                if scale is not None:
                    columns |= {name: np.asarray(points[name]) for name in COLOR_NAMES}
                done += len(points)
                yield _filtered(columns_to_chunk(columns, scale), points, facts.names, options)
    except ScanError:
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
            raise
        raise _damaged(path, facts.count, done, _reason(error)) from error
    if done < facts.count:
        raise _damaged(path, facts.count, done, "the data ends early")


def _filtered(chunk: ScanChunk, points: Any, names: frozenset[str], options: ScanOptions) -> ScanChunk:
    classes = np.asarray(points["classification"]).astype(np.uint8)
    chunk = ScanChunk(chunk.points, None, chunk.colors, classes=classes)
    first, last = np.asarray(points["return_number"]), np.asarray(points["number_of_returns"])
    if "withheld" in names and not options.keep_withheld:
        withheld = np.asarray(points["withheld"]).astype(bool)
        first, last = first[~withheld], last[~withheld]
        chunk = chunk.only(~withheld, "marked as withheld")
    if options.returns != "all":
        # A return number of 0 means that the writer does not know: such points are kept.
        kept = (first <= 1) if options.returns == "first" else ((first == 0) | (first >= last))
        chunk = chunk.only(kept, f"not the {options.returns} return")
    for number in options.drop_classes:
        if number not in options.keep_classes:
            assert chunk.classes is not None
            reason = f"of class {number}" + (" (noise)" if number in (7, 18) else "")
            chunk = chunk.only(chunk.classes != number, reason)
    if options.keep_classes:
        assert chunk.classes is not None
        chunk = chunk.only(
            np.isin(chunk.classes, options.keep_classes), "of other classes than those to keep"
        )
    return chunk


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _damaged(path: Path, count: int, done: int, reason: str) -> ScanError:
    return ScanError(
        f"{path}: is truncated or damaged after point {done:,} of {count:,} ({reason}); copy or export it again"
    )
