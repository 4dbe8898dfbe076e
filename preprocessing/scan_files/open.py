"""Choosing the reader by the file's first bytes and suffix, and bringing what it reads to meters and z up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.local_paths import local_path
from preprocessing.errors import ScanError
from preprocessing.formats import COLMAP_POINTS, SCAN_FORMATS, SCAN_SUFFIXES
from preprocessing.scan_files.arrays import open_arrays
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, directions_to
from preprocessing.scan_files.colmap import open_colmap
from preprocessing.scan_files.e57 import open_e57
from preprocessing.scan_files.las import open_las
from preprocessing.scan_files.options import METRES, ScanOptions
from preprocessing.scan_files.pcd import open_pcd
from preprocessing.scan_files.ply import open_ply
from preprocessing.scan_files.ptx import open_ptx
from preprocessing.scan_files.source import GZIP_ERRORS, damaged_gzip, head_of
from preprocessing.scan_files.text import open_text
from preprocessing.scan_files.vertices import open_mesh_vertices, open_obj, open_off

_READERS: dict[str, Callable[[Path, int, ScanOptions], ScanReader]] = {
    "PLY": open_ply,
    "PCD": open_pcd,
    "text": open_text,
    "PTX": open_ptx,
    "NPZ, NPY": open_arrays,
    "LAS, LAZ": open_las,
    "E57": open_e57,
    "OBJ": open_obj,
    "OFF": open_off,
}
_BY_KIND = {suffix: _READERS[name] for name, suffixes in SCAN_FORMATS.items() for suffix in suffixes}
_BY_KIND[COLMAP_POINTS] = open_colmap
_MESHES = (".stl", ".glb")
# What a file is by its first bytes, whatever its name says.
_MAGIC = {
    b"ply": ".ply",
    b"LASF": ".las",
    b"ASTM-E57": ".e57",
    b"\x93NUMPY": ".npy",
    b"glTF": ".glb",
    b"# .PCD": ".pcd",
}
_CURES = {
    ".rcp": "export E57 or PTS from Autodesk ReCap",
    ".rcs": "export E57 or PTS from Autodesk ReCap",
    ".fls": "export E57 from FARO SCENE",
    ".zfs": "export E57 from Z+F LaserControl",
    ".bag": "export PCD or PLY with ROS (bag_to_pcd)",
    ".pcap": "export CSV or LAS from VeloView",
    ".zip": "unpack it first",
    ".7z": "unpack it first",
    ".bin": "of these only COLMAP's points3D.bin is read; convert it to PLY, LAS or E57 (CloudCompare can)",
    ".gltf": "save it as GLB, or convert it to PLY",
    ".ptg": "export E57 or PTX",
    ".pod": "export LAS or E57",
    ".mesh": "convert it to PLY or OBJ",
    ".fbx": "convert it to PLY or OBJ",
    ".dxf": "export the points as XYZ or LAS",
    ".dwg": "export the points as XYZ or LAS",
    ".dae": "convert it to PLY, OBJ or GLB",
    ".blend": "export PLY, OBJ or GLB from Blender",
    ".usdz": "convert it to GLB",
    ".vtk": "save it as PLY or CSV in ParaView",
    ".vtp": "save it as PLY or CSV in ParaView",
    ".db3": "export PCD or PLY with ROS",
    ".mcap": "export PCD or PLY with ROS",
    ".splat": "export it as PLY",
    ".spz": "export it as PLY",
    ".xlsx": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".parquet": "save its columns as CSV or with numpy.savez",
    ".h5": "save its points with numpy.savez",
    ".hdf5": "save its points with numpy.savez",
    ".mat": "save its points with numpy.savez",
    ".pkl": "pickles are never opened; save its points with numpy.savez",
    ".pt": "pickles are never opened; save its points with numpy.savez",
}


def scan_kind(path: Path) -> str:
    """How a file is read, as a suffix or a whole name: by its first bytes if they are unmistakable, else by its name.

    Raises:
        ScanError: if the file is missing, empty, a folder, or of an unknown format.
    """
    path = local_path(path)
    if not path.exists():
        raise ScanError(f"{path}: no such file")
    if path.is_dir():
        raise ScanError(f"{path}: is a folder; name one scan file")
    if not path.is_file():
        raise ScanError(f"{path}: is a pipe or a device, not a file; save the scan to a file first")
    try:
        if path.stat().st_size == 0:
            raise ScanError(f"{path}: is empty (0 bytes); copy or export it again")
        head = head_of(path, 16)
    except OSError as error:
        raise _unreadable(path, error) from error
    name = path.name.lower().removesuffix(".gz")
    if name == COLMAP_POINTS:
        return name
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".gz", ".gzip"):
        suffix = suffixes[-2] if len(suffixes) > 1 else ""
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if (
        found is not None
        and not (found == ".las" and suffix == ".laz")
        and (found != ".ply" or head[3:4] in b"\r\n \t")
    ):
        return found
    if suffix not in SCAN_SUFFIXES and suffix not in _MESHES:
        cure = _CURES.get(suffix, f"readable are {', '.join(SCAN_SUFFIXES)}, each also as .gz")
        raise ScanError(f"{path}: unknown scan format '{suffix}'; {cure}")
    return suffix


def open_scan(path: Path, chunk_points: int = 1_000_000, options: ScanOptions | None = None) -> ScanReader:
    """Open a point cloud for reading in chunks.

    Points come in meters, z up, in double precision; what the options or the file's own marks leave out is
    counted in the chunks. Colors are brought to bytes by one scale for the whole file, and left out where all
    are zero.

    Args:
        path: the file, which may be gzipped; its first bytes or its suffix name the format.
        chunk_points: most points of a chunk, at least 1.
        options: how to read it.

    Raises:
        ScanError: if the file is missing, empty, of an unknown format, a mesh, or has a damaged header;
            iterating raises it where the data behind the header is damaged.
        ValueError: if `chunk_points` is not positive.
    """
    if chunk_points < 1:
        raise ValueError(f"chunk_points must be at least 1, not {chunk_points}")
    path, options = Path(path), options or ScanOptions()
    kind = scan_kind(path)
    try:
        reader = _BY_KIND.get(kind, open_mesh_vertices)(path, chunk_points, options)
    except OSError as error:
        raise _unreadable(path, error) from error
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from error
    has_directions = reader.has_directions or bool(options.stations)
    stations = options.stations or reader.stations
    turned = _turned(np.array(stations, np.float64).reshape(-1, 3), options)
    return replace(
        reader,
        chunks=lambda: _guarded(reader, options),
        has_directions=has_directions,
        stations=tuple((float(x), float(y), float(z)) for x, y, z in turned),
    )


def _turned(places: NDArray[np.float64], options: ScanOptions) -> NDArray[np.float64]:
    """Positions in meters, z up."""
    if options.leaves_frame:
        return places
    return np.asarray((places * METRES[options.unit]) @ options.rotation.T)


def _upright(chunk: ScanChunk, options: ScanOptions) -> ScanChunk:
    directions = chunk.directions
    if options.stations:
        directions = directions_to(chunk.points, np.array(options.stations))
    if options.leaves_frame:
        return replace(chunk, directions=directions)
    turn = options.rotation.T.astype(np.float32)
    return replace(
        chunk,
        points=_turned(chunk.points, options),
        normals=None if chunk.normals is None else chunk.normals @ turn,
        directions=None if directions is None else directions @ turn,
    )


def _guarded(reader: ScanReader, options: ScanOptions) -> Iterator[ScanChunk]:
    try:
        for chunk in reader.chunks():
            yield _upright(chunk, options)
    except GZIP_ERRORS as error:
        raise damaged_gzip(reader.path, error) from error
    except OSError as error:  # a lost network drive, a failing disk
        raise _unreadable(reader.path, error) from error


def _unreadable(path: Path, error: OSError) -> ScanError:
    return ScanError(
        f"{path}: cannot be read ({error.strerror or error}); check its permissions and its disk"
    )
