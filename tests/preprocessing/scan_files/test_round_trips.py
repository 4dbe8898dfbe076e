"""Properties of every reader: what was written comes back, in chunks of any size; what is cut is refused."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import laspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk, open_scan, write_scan_ply

QUICK = settings(max_examples=25, deadline=None)
COORDINATES = st.floats(-5e6, 5e6, allow_nan=False)


@dataclass(frozen=True)
class Cloud:
    """A whole scan in memory; normals and colours always present, for the writers to leave out."""

    points: np.ndarray
    normals: np.ndarray
    colors: np.ndarray


@st.composite
def clouds(draw: st.DrawFn, most: int = 40) -> Cloud:
    count = draw(st.integers(1, most))
    points = draw(arrays(np.float64, (count, 3), elements=COORDINATES))
    directions = np.random.default_rng(draw(st.integers(0, 1000))).normal(size=(count, 3))
    normals = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    return Cloud(points, normals, draw(arrays(np.uint8, (count, 3))))


@contextmanager
def file_with(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def read(path: Path, chunk: int) -> ScanChunk:
    reader = open_scan(path, chunk)
    parts = list(reader.chunks())
    assert all(0 < len(part.points) <= chunk for part in parts)
    assert all((part.normals is not None) == reader.has_normals for part in parts)
    assert all((part.colors is not None) == reader.has_colors for part in parts)
    points = np.concatenate([part.points for part in parts])
    assert reader.count in (None, len(points))
    return ScanChunk(
        points,
        np.concatenate([part.normals for part in parts]) if reader.has_normals else None,
        np.concatenate([part.colors for part in parts]) if reader.has_colors else None,
    )


def ply(cloud: Cloud) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_scan_ply(Path(folder) / "a.ply", cloud.points, cloud.normals, cloud.colors)
        return (Path(folder) / "a.ply").read_bytes()


def rows_of(cloud: Cloud, order: str) -> np.ndarray:
    """Structured rows as a PLY or PCD file lays them out, with a column that readers must step over."""
    kinds = [(axis, f"{order}f8") for axis in "xyz"] + [("intensity", f"{order}i2")]
    kinds += [(f"n{axis}", f"{order}f4") for axis in "xyz"]
    kinds += [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.zeros(len(cloud.points), np.dtype(kinds))
    for column, axis in enumerate("xyz"):
        rows[axis], rows[f"n{axis}"] = cloud.points[:, column], cloud.normals[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        rows[name] = cloud.colors[:, column]
    return rows


def text_of(rows: np.ndarray, separator: str = " ") -> bytes:
    """Rows as text that keeps every bit."""
    return "".join(separator.join(str(value) for value in row) + "\n" for row in rows.tolist()).encode()


def ply_by_hand(layout: str) -> Callable[[Cloud], bytes]:
    def write(cloud: Cloud) -> bytes:
        rows = rows_of(cloud, ">" if layout == "binary_big_endian" else "<")
        names = {"f8": "double", "f4": "float", "u1": "uchar", "i2": "short"}
        lines = ["ply", f"format {layout} 1.0", "comment by hand", f"element vertex {len(rows)}"]
        lines += [f"property {names[rows.dtype[name].str[1:]]} {name}" for name in rows.dtype.names or ()]
        data = text_of(rows) if layout == "ascii" else rows.tobytes()
        return ("\n".join([*lines, "end_header"]) + "\n").encode() + data

    return write


def literal_lzf(data: bytes) -> bytes:
    """LZF without any reference: runs of literals alone."""
    parts = (data[start : start + 32] for start in range(0, len(data), 32))
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def pcd(kind: str) -> Callable[[Cloud], bytes]:
    def write(cloud: Cloud) -> bytes:
        rows = rows_of(cloud, "<")
        names = rows.dtype.names or ()
        letters = {"f": "F", "i": "I", "u": "U"}
        header = [
            "# .PCD v0.7",
            "VERSION 0.7",
            "FIELDS " + " ".join(name.replace("n", "normal_") if name[0] == "n" else name for name in names),
            "SIZE " + " ".join(str(rows.dtype[name].itemsize) for name in names),
            "TYPE " + " ".join(letters[rows.dtype[name].kind] for name in names),
            "COUNT " + " ".join("1" for _ in names),
            f"WIDTH {len(rows)}",
            "HEIGHT 1",
            "VIEWPOINT 0 0 0 1 0 0 0",
            f"POINTS {len(rows)}",
            f"DATA {kind}",
        ]
        if kind == "ascii":
            data = text_of(rows)
        elif kind == "binary":
            data = rows.tobytes()
        else:
            columns = b"".join(rows[name].tobytes() for name in names)
            packed = literal_lzf(columns)
            data = struct.pack("<II", len(packed), len(columns)) + packed
        return ("\n".join(header) + "\n").encode() + data

    return write


def numpy_archive(order: str, is_compressed: bool) -> Callable[[Cloud], bytes]:
    def write(cloud: Cloud) -> bytes:
        file = io.BytesIO()
        save = np.savez_compressed if is_compressed else np.savez
        save(file, points=np.array(cloud.points, order=order), normals=cloud.normals, colors=cloud.colors)
        return file.getvalue()

    return write


def text(separator: str, header: str) -> Callable[[Cloud], bytes]:
    return lambda cloud: header.encode() + text_of(rows_of(cloud, "<"), separator)


COMPLETE: dict[str, tuple[str, Callable[[Cloud], bytes]]] = {
    "our ply": ("a.ply", ply),
    "ply little endian": ("a.ply", ply_by_hand("binary_little_endian")),
    "ply big endian": ("a.ply", ply_by_hand("binary_big_endian")),
    "ply ascii": ("a.ply", ply_by_hand("ascii")),
    "pcd ascii": ("a.pcd", pcd("ascii")),
    "pcd binary": ("a.pcd", pcd("binary")),
    "pcd compressed": ("a.pcd", pcd("binary_compressed")),
    "npz": ("a.npz", numpy_archive("C", False)),
    "npz compressed": ("a.npz", numpy_archive("C", True)),
    "npz in Fortran order": ("a.npz", numpy_archive("F", False)),
    "csv with names": ("a.csv", text(",", "X,Y,Z,Intensity,Nx,Ny,Nz,R,G,B\n")),
    "txt with names in a comment": ("a.txt", text("\t", "//x y z i nx ny nz red green blue\n")),
    "xyz with a byte order mark": ("a.xyz", text("; ", "\ufeffx;y;z;i;nx;ny;nz;red;green;blue\r\n")),
}


@pytest.mark.parametrize("form", COMPLETE)
@QUICK
@given(cloud=clouds(), chunk=st.integers(1, 50))
def test_every_bit_comes_back_in_chunks_of_any_size(form: str, cloud: Cloud, chunk: int) -> None:
    name, write = COMPLETE[form]
    with file_with(name, write(cloud)) as path:
        found = read(path, chunk)
    np.testing.assert_array_equal(found.points, cloud.points)
    np.testing.assert_array_equal(found.normals, cloud.normals)
    np.testing.assert_array_equal(found.colors, cloud.colors)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@QUICK
@given(cloud=clouds(), chunk=st.integers(1, 50), as_bytes=st.booleans())
def test_las_comes_back_within_half_its_scale(suffix: str, cloud: Cloud, chunk: int, as_bytes: bool) -> None:
    # Colours come as 16 bits, or as the 8 bits that some writers put there.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_las(path, cloud, 1 if as_bytes else 257)
        found = read(path, chunk)
    np.testing.assert_allclose(found.points, cloud.points, rtol=0, atol=0.5e-2 + 1e-8)
    np.testing.assert_array_equal(found.colors, cloud.colors)


def write_las(path: Path, cloud: Cloud, color_factor: int) -> None:
    file = laspy.create(point_format=2)
    file.header.scales = [1e-2] * 3  # 5e6 m fit 31 bits
    file.x, file.y, file.z = cloud.points.T
    file.red, file.green, file.blue = (cloud.colors.astype(np.uint16) * color_factor).T
    file.write(path)


def las(suffix: str) -> Callable[[Cloud], bytes]:
    def write(cloud: Cloud) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            write_las(Path(folder) / f"a{suffix}", cloud, 257)
            return (Path(folder) / f"a{suffix}").read_bytes()

    return write


def numpy_file(cloud: Cloud) -> bytes:
    file = io.BytesIO()
    np.save(file, cloud.points)
    return file.getvalue()


BINARY = {name: COMPLETE[name] for name in COMPLETE if name.startswith(("our", "ply", "pcd", "npz"))}
BINARY = {name: form for name, form in BINARY.items() if "ascii" not in name} | {
    "las": ("a.las", las(".las")),
    "laz": ("a.laz", las(".laz")),
    "npy": ("a.npy", numpy_file),
}


@pytest.mark.parametrize("form", BINARY)
@QUICK
@given(cloud=clouds(), cut=st.floats(0, 1, exclude_max=True), chunk=st.integers(1, 50))
def test_a_binary_file_cut_anywhere_is_refused(form: str, cloud: Cloud, cut: float, chunk: int) -> None:
    name, write = BINARY[form]
    data = write(cloud)
    with (
        file_with(name, data[: int(cut * len(data))]) as path,
        pytest.raises(ScanError, match=rf"{name}: .+[;(]"),
    ):
        read(path, chunk)


TEXT = {name: COMPLETE[name] for name in COMPLETE if name not in BINARY}


@pytest.mark.parametrize("form", TEXT)
@QUICK
@given(cloud=clouds(), cut=st.floats(0, 1, exclude_max=True), chunk=st.integers(1, 50))
def test_a_text_file_cut_anywhere_is_refused_or_a_beginning(
    form: str, cloud: Cloud, cut: float, chunk: int
) -> None:
    name, write = TEXT[form]
    data = write(cloud)
    with file_with(name, data[: int(cut * len(data))]) as path:
        try:
            found = read(path, chunk)
        except ScanError as error:
            assert name in str(error)
            return
    # The last number may have lost digits, and it is a colour: every position is whole.
    np.testing.assert_array_equal(found.points, cloud.points[: len(found.points)])


@pytest.mark.parametrize("form", [*BINARY, *TEXT])
@QUICK
@given(cloud=clouds(5), data=st.data())
def test_damage_anywhere_is_a_scan_error_or_other_points(
    form: str, cloud: Cloud, data: st.DataObject
) -> None:
    # A changed byte of a coordinate is another coordinate; no other kind of exception may come out.
    name, write = (BINARY | TEXT)[form]
    content = bytearray(write(cloud))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with file_with(name, bytes(content)) as path:
        try:
            for part in open_scan(path, 3).chunks():
                assert part.points.shape[1] == 3
        except ScanError as error:
            assert name in str(error)
