"""E57 through libE57, a block of points at a time, in the file's common frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk, directions_to
from preprocessing.scan_files.colors import ColorScale, decide_scale
from preprocessing.scan_files.names import AXES, COLOR_NAMES
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import is_gzipped

_CARTESIAN = ("cartesianX", "cartesianY", "cartesianZ")
_SPHERICAL = ("sphericalRange", "sphericalAzimuth", "sphericalElevation")
_COLORS = ("colorRed", "colorGreen", "colorBlue")
_NORMALS = ("nor:normalX", "nor:normalY", "nor:normalZ")
_INVALID = ("cartesianInvalidState", "sphericalInvalidState")
SAMPLE_ROWS = 16_384  # of each scan position, to decide the colors' scale
MOST_POSITIONS = 100_000


@dataclass(frozen=True)
class _Position:
    """One scan position: its number of points, fields, and pose (identity where the file has none)."""

    points: int
    fields: frozenset[str]
    rotation: NDArray[np.float64]
    station: NDArray[np.float64]
    has_pose: bool

    @property
    def axes(self) -> tuple[str, ...]:
        return _CARTESIAN if all(name in self.fields for name in _CARTESIAN) else _SPHERICAL


def open_e57(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open an E57 point cloud; see `open_scan`.

    Colors and normals are given only if every scan position has them whole. Points that the file marks as
    invalid are left out and counted.
    """
    try:
        import pye57
    except ImportError as error:
        raise ScanError(f"{path}: E57 needs one more package; run: pip install pye57") from error
    if is_gzipped(path):
        raise ScanError(f"{path}: E57 files are read unpacked; run gunzip on it first")
    try:
        file = pye57.E57(str(path))
        if file.scan_count > MOST_POSITIONS:
            raise ValueError(f"{file.scan_count:,} scan positions")
        positions = [_position(file.get_header(number)) for number in range(file.scan_count)]
        crs = _coordinate_metadata(file)
    except Exception as error:  # the library raises its own C++ exceptions
        raise ScanError(
            f"{path}: is not a readable E57 file ({_first_line(error)}); copy or export it again"
        ) from error
    for number, position in enumerate(positions):
        if not all(name in position.fields for name in position.axes):
            raise ScanError(
                f"{path}: scan position {number + 1} has no coordinates but {', '.join(sorted(position.fields))}; "
                "export it with cartesian coordinates"
            )
    filled = [position for position in positions if position.points]
    has_normals = bool(filled) and all(set(_NORMALS) <= position.fields for position in filled)
    scale = None
    if filled and all(set(_COLORS) <= position.fields for position in filled):
        scale = _color_scale(path, file, positions)
    has_poses = bool(filled) and all(position.has_pose for position in filled)

    def chunks() -> Iterator[ScanChunk]:
        for number, position in enumerate(positions):
            yield from _chunks(path, file, number, position, scale, has_normals, has_poses, chunk_points)

    return ScanReader(
        path,
        "E57",
        sum(position.points for position in positions),
        chunks,
        has_normals=has_normals,
        has_colors=scale is not None,
        has_directions=has_poses,
        columns=dict(zip(AXES, filled[0].axes, strict=True))
        | (dict(zip(COLOR_NAMES, _COLORS, strict=True)) if scale else {})
        if filled
        else {},
        stations=tuple(tuple(map(float, position.station)) for position in positions if position.has_pose),  # type: ignore[misc]
        crs=crs,
        crs_unit="m",
    )


def _coordinate_metadata(file: Any) -> str | None:
    try:
        return str(file.root["coordinateMetadata"].value()).strip() or None
    except Exception:  # an optional element: its absence is an exception of the library's own kind
        return None


def _position(header: Any) -> _Position:
    has_pose = bool(header.has_pose())
    rotation = np.eye(3)
    station = np.zeros(3)
    if has_pose:
        rotation = np.asarray(header.rotation_matrix, np.float64)
        station = np.asarray(header.translation, np.float64)
    points = int(header.point_count)
    return _Position(points, frozenset(header.point_fields), rotation, station, has_pose)


def _read(
    file: Any, number: int, position: _Position, names: tuple[str, ...], rows: int
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Blocks of some fields of a scan position, as real numbers; bounded memory whatever the position's size."""
    from pye57 import libe57

    rows = max(1, min(rows, position.points))
    arrays = {name: np.zeros(rows) for name in names}
    buffers = libe57.VectorSourceDestBuffer()
    for name, values in arrays.items():
        buffers.append(libe57.SourceDestBuffer(file.image_file, name, values, rows, True, True))
    reader = file.get_header(number).points.reader(buffers)
    try:
        while count := reader.read():
            yield {name: values[:count].copy() for name, values in arrays.items()}
    finally:
        reader.close()


def _color_scale(path: Path, file: Any, positions: list[_Position]) -> ColorScale | None:
    may_be_fractions = False
    channels: list[list[NDArray[np.float64]]] = [[], [], []]
    for number, position in enumerate(positions):
        if position.points:
            block = _guarded_next(path, number, _read(file, number, position, _COLORS, SAMPLE_ROWS))
            may_be_fractions |= not _are_whole(file, number)
            for channel, name in zip(channels, _COLORS, strict=True):
                channel.append(block[name])
    return decide_scale([np.concatenate(parts) for parts in channels], None if may_be_fractions else "whole")


def _are_whole(file: Any, number: int) -> bool:
    """Whether the colors of a scan position are whole numbers by their type."""
    from pye57 import libe57

    header = file.get_header(number)  # keeps its nodes alive
    prototype = libe57.StructureNode(header.points.prototype())
    return all(prototype.get(name).type() == libe57.NodeType.E57_INTEGER for name in _COLORS)


def _guarded_next(path: Path, number: int, blocks: Iterator[Any]) -> Any:
    try:
        return next(blocks)
    except StopIteration as error:
        raise ScanError(
            f"{path}: scan position {number + 1} ends before its first point; export it again"
        ) from error
    except Exception as error:
        raise _damaged(path, number, error) from error


def _damaged(path: Path, number: int, error: Exception) -> ScanError:
    return ScanError(
        f"{path}: scan position {number + 1} is damaged ({_first_line(error)}); copy or export it again"
    )


def _chunks(
    path: Path,
    file: Any,
    number: int,
    position: _Position,
    scale: ColorScale | None,
    has_normals: bool,
    has_poses: bool,
    chunk_points: int,
) -> Iterator[ScanChunk]:
    if not position.points:
        return
    state = next((name for name in _INVALID if name in position.fields), None)
    names = position.axes + (_COLORS if scale else ()) + (_NORMALS if has_normals else ())
    done = 0
    try:
        for block in _read(file, number, position, names + ((state,) if state else ()), chunk_points):
            done += len(block[position.axes[0]])
            local = _local(block, position)
            world = position.rotation @ local + position.station[:, None]
            columns = dict(zip(AXES, world, strict=True))
            columns |= {role: block[name] for role, name in zip(COLOR_NAMES, _COLORS, strict=True) if scale}
            chunk = columns_to_chunk(columns, scale)
            normals = None
            if has_normals:
                turned = np.stack([block[name] for name in _NORMALS], axis=1) @ position.rotation.T
                normals = turned.astype(np.float32)
            directions = directions_to(chunk.points, position.station[None]) if has_poses else None
            chunk = ScanChunk(chunk.points, normals, chunk.colors, directions)
            returned: NDArray[np.bool_] = np.asarray(local.any(axis=0))
            if state is not None:
                valid = block[state] == 0
                chunk, returned = chunk.only(valid, "marked as invalid"), returned[valid]
            # No scanner sees its own center: that is what some write where nothing came back.
            yield chunk.only(returned, "without a return, (0, 0, 0)")
    except Exception as error:
        raise _damaged(path, number, error) from error
    if done < position.points:
        raise ScanError(
            f"{path}: scan position {number + 1} is truncated: {done:,} of {position.points:,} points; export it again"
        )


def _local(block: dict[str, NDArray[np.float64]], position: _Position) -> NDArray[np.float64]:
    """(3, N) coordinates as the scanner at its position measured them."""
    local = np.stack([block[name] for name in position.axes])
    if position.axes == _SPHERICAL:
        distance, azimuth, elevation = local
        flat = distance * np.cos(elevation)
        local = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)])
    return np.asarray(local)


def _first_line(error: Exception) -> str:
    """The library appends its source positions on further lines."""
    return str(error).strip().split("\n", 1)[0]
