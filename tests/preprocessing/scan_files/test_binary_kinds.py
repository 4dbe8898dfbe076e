"""PLY, PCD, NumPy, LAS, E57 and OBJ clouds as scanners, phones, photogrammetry and converters write them."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import laspy
import numpy as np
import pytest
import trimesh
from laspy.vlrs.vlrlist import VLRList
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.meshes.files import write_mesh
from preprocessing.scan_files import ScanOptions, open_scan
from tests.preprocessing.scan_files.clouds import (
    COLORS,
    COUNT,
    NORMALS,
    POINTS,
    packed,
    pcd,
    ply,
    read,
    refusal,
    rgb,
    rows,
    xyz,
)

XYZ = [("float", axis) for axis in "xyz"]
RGB = [("uchar", name) for name in ("red", "green", "blue")]
FACE_LIST = b"property list uchar int vertex_indices\n"


def with_lists(order: str = "<") -> bytes:
    """Rows x y z, a list of whole numbers, a list of reals, and a label."""
    data = b""
    for number, point in enumerate(POINTS):
        data += struct.pack(f"{order}3f", *point)
        data += struct.pack(f"{order}B{number % 4}I", number % 4, *range(number % 4))
        data += struct.pack(f"{order}B{number % 3}f", number % 3, *([0.5] * (number % 3)))
        data += struct.pack(f"{order}h", number)
    return data


LISTS = [*XYZ, ("list uchar uint", "view_indices"), ("list uchar float", "view_weights"), ("short", "label")]
AFTER = ply(XYZ, packed(**xyz())).replace(
    b"element vertex", b"element camera 2\nproperty float f\nelement vertex"
)
CAMERAS = AFTER.replace(b"end_header\n", b"end_header\n" + b"\0" * 8)
LIST_FIRST = ply(XYZ, b"").replace(
    b"element vertex", b"element view 2\nproperty list uchar int ids\nelement vertex"
) + struct.pack("<BiiB", 2, 5, 6, 0)
STRUCTURED = np.zeros(COUNT, [("intensity", "<u2"), ("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
for _number, _axis in enumerate("xyz"):
    STRUCTURED[_axis] = POINTS[:, _number]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


OBJ_LINES = "".join(f"v {line}\n" for line in rows(POINTS).splitlines()).encode()
PLAIN: dict[str, tuple[str, bytes]] = {
    "ply: upper case": ("a.ply", ply([("FLOAT", axis) for axis in "XYZ"], packed(**xyz()))),
    "ply: types with their size": ("a.ply", ply([("float64", axis) for axis in "xyz"], packed(**xyz("<f8")))),
    "ply: two lists in the vertex": ("a.ply", ply(LISTS, with_lists())),
    "ply: lists, big endian": ("a.ply", ply(LISTS, with_lists(">"), form="binary_big_endian")),
    "ply: big endian": ("a.ply", ply(XYZ, packed(**xyz(">f4")), form="binary_big_endian")),
    "ply: an element ahead": ("a.ply", CAMERAS),
    "ply: an element with lists ahead": ("a.ply", LIST_FIRST + packed(**xyz())),
    "ply: no faces, but their list": (
        "a.ply",
        ply(XYZ, packed(**xyz())).replace(b"end_header", b"element face 0\n" + FACE_LIST + b"end_header"),
    ),
    "ply: bytes behind the end": ("a.ply", ply(XYZ, packed(**xyz()) + b"trailing")),
    "ply: a header of Windows": (
        "a.ply",
        ply(XYZ, b"").replace(b"\n", b"\r\n") + packed(**xyz()),
    ),
    "ply: a header of old Macs": ("a.ply", ply(XYZ, b"").replace(b"\n", b"\r") + packed(**xyz())),
    "ply: comments and obj_info": (
        "a.ply",
        ply(XYZ, packed(**xyz())).replace(b"element", b"comment by x\nobj_info 1 2\nelement"),
    ),
    "ply: text with blank lines and comments": (
        "a.ply",
        ply(XYZ, rows(POINTS).replace("\n", "\n\n", 9).encode() + b"comment end\n", form="ascii").replace(
            b"end_header\n", b"end_header\n# data\n"
        ),
    ),
    "ply: real numbers in whole-number columns": (
        "a.ply",
        ply([*XYZ, ("int", "label")], rows(POINTS, np.full(COUNT, 1.5)).encode(), form="ascii"),
    ),
    "ply: nan in a whole-number column": (
        "a.ply",
        ply([*XYZ, ("uchar", "q")], rows(POINTS).replace("\n", " nan\n").encode(), form="ascii"),
    ),
    "ply: lists in text": (
        "a.ply",
        ply(
            [*XYZ, ("list uchar int", "ids")],
            "".join(
                f"{x:.6f} {y:.6f} {z:.6f} {n % 3}{' 7' * (n % 3)}\n" for n, (x, y, z) in enumerate(POINTS)
            ).encode(),
            form="ascii",
        ),
    ),
    "ply: text of Windows": (
        "a.ply",
        ply(XYZ, rows(POINTS).encode(), form="ascii").replace(b"\n", b"\r\n"),
    ),
    "ply: splats without colors": (
        "a.ply",
        ply(
            [*XYZ, *(("float", name) for name in ("nx", "ny", "nz", "f_dc_0", "opacity"))],
            packed(**xyz(), nx=("<f4", 0 * POINTS[:, 0]), ny=("<f4", 0 * POINTS[:, 0]), nz=("<f4", 0 * POINTS[:, 0]),
                   f=("<f4", POINTS[:, 0]), o=("<f4", POINTS[:, 0])),
        ),
    ),
    "ply under another name": ("a.txt", ply(XYZ, packed(**xyz()))),
    "ply gzipped": ("a.ply.gz", gzip.compress(ply(XYZ, packed(**xyz())))),
    "pcd: upper case": ("a.pcd", pcd("X Y Z", "4 4 4", "F F F", packed(**xyz()))),
    "pcd: lower-case header": (
        "a.pcd",
        pcd("x y z", "4 4 4", "f f f", packed(**xyz())).replace(b"FIELDS", b"fields").replace(b"DATA", b"data"),
    ),
    "pcd: nan in a whole-number column": (
        "a.pcd",
        pcd("x y z label", "4 4 4 4", "F F F U", rows(POINTS).replace("\n", " nan\n").encode(), "ascii"),
    ),
    "pcd: padding of the driver": (
        "a.pcd",
        pcd("x y z _ intensity ring _", "4 4 4 1 4 2 1", "F F F U F U U",
            packed(**xyz(), a=("V4", np.zeros(COUNT, "V4")), i=("<f4", POINTS[:, 0]), r=("<u2", POINTS[:, 0]),
                   b=("V10", np.zeros(COUNT, "V10"))), COUNT="1 1 1 4 1 1 10"),
    ),
    "pcd: an old header": (
        "a.pcd",
        pcd("", "", "", rows(POINTS).encode(), "ascii", FIELDS="", SIZE="", TYPE="", COUNT="", VERSION="",
            COLUMNS="x y z"),
    ),
    "pcd: without points": ("a.pcd", pcd("x y z", "4 4 4", "F F F", packed(**xyz()), POINTS="")),
    "pcd: organized": (
        "a.pcd",
        pcd("x y z", "4 4 4", "F F F", packed(**xyz()), WIDTH="24", HEIGHT=str(COUNT // 24)),
    ),
    "pcd: doubles and reversed axes": (
        "a.pcd",
        pcd("z y x", "8 8 8", "F F F", packed(**dict(reversed(xyz("<f8").items())))),
    ),
    "pcd gzipped": ("a.pcd.gz", gzip.compress(pcd("x y z", "4 4 4", "F F F", packed(**xyz())))),
    "npy: structured": ("a.npy", npy(STRUCTURED)),
    "npy: structured, upper case": (
        "a.npy",
        npy(STRUCTURED.astype([("Intensity", "<u2"), ("X", "<f8"), ("Y", "<f8"), ("Z", "<f8")])),
    ),
    "npy: organized": ("a.npy", npy(POINTS.reshape(24, -1, 3))),
    "npy: (3, N)": ("a.npy", npy(POINTS.T.copy())),
    "npy: (3, N) in Fortran order": ("a.npy", npy(np.asfortranarray(POINTS.T))),
    "npy: Fortran order": ("a.npy", npy(np.asfortranarray(np.c_[POINTS, POINTS[:, :1]]))),
    "npy: big endian": ("a.npy", npy(POINTS.astype(">f8"))),
    "npy: with intensity": ("a.npy", npy(np.c_[POINTS, np.linspace(0, 1, COUNT)].astype(np.float32))),
    "npy gzipped": ("a.npy.gz", gzip.compress(npy(POINTS))),
    "npz: another name": ("a.npz", npz(xyz=POINTS)),
    "npz: no name": ("a.npz", npz(arr_0=POINTS)),
    "npz: x, y and z apart": ("a.npz", npz(x=POINTS[:, 0], y=POINTS[:, 1], z=POINTS[:, 2], t=POINTS[:, 0])),
    "npz: Fortran order": ("a.npz", npz(points=np.asfortranarray(POINTS))),
    "npy: six rows of columns": ("a.npy", npy(np.r_[POINTS.T, np.zeros((3, COUNT))])),
    "off: points only": ("a.off", f"OFF\n{COUNT} 0 0\n{rows(POINTS)}".encode()),
    "obj: points only": ("a.obj", b"# cloud\n" + OBJ_LINES),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
def test_points_are_found_whatever_is_around_them(kind: str, tmp_path: Path) -> None:
    name, content = PLAIN[kind]
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name)
    np.testing.assert_allclose(found.points, POINTS, rtol=1e-6, atol=2e-6)
    assert found.colors is None
    assert found.normals is None


BITS = (COLORS.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=1).astype(np.uint32)
TEXT_FLOATS = "".join(
    f"{x:.6f} {y:.6f} {z:.6f} {value!r}\n"
    for (x, y, z), value in zip(POINTS, BITS.view(np.float32).astype(float).tolist(), strict=True)
)
COLORED: dict[str, tuple[str, bytes]] = {
    "ply: bytes": ("a.ply", ply([*XYZ, *RGB], packed(**xyz(), **rgb("u1")))),
    "ply: bytes with alpha": (
        "a.ply",
        ply([*XYZ, *RGB, ("uchar", "alpha")], packed(**xyz(), **rgb("u1"), a=("u1", 255 + 0 * COLORS[:, 0]))),
    ),
    "ply: diffuse_red": (
        "a.ply",
        ply([*XYZ, *(("uchar", f"diffuse_{name}") for _, name in RGB)], packed(**xyz(), **rgb("u1"))),
    ),
    "ply: r g b": ("a.ply", ply([*XYZ, *(("uchar", name) for name in "rgb")], packed(**xyz(), **rgb("u1")))),
    "ply: Red Green Blue": (
        "a.ply",
        ply([*XYZ, *(("uchar", name.title()) for _, name in RGB)], packed(**xyz(), **rgb("u1"))),
    ),
    "ply: 16 bits": (
        "a.ply",
        ply([*XYZ, *(("ushort", name) for _, name in RGB)], packed(**xyz(), **rgb("<u2", 257))),
    ),
    "ply: bytes in 16 bits": (
        "a.ply",
        ply([*XYZ, *(("ushort", name) for _, name in RGB)], packed(**xyz(), **rgb("<u2"))),
    ),
    "ply: fractions": (
        "a.ply",
        ply([*XYZ, *(("float", name) for _, name in RGB)], packed(**xyz(), **rgb("<f4", 1 / 255))),
    ),
    "ply: real numbers up to 255": (
        "a.ply",
        ply([*XYZ, *(("float", name) for _, name in RGB)], packed(**xyz(), **rgb("<f4"))),
    ),
    "ply: bytes as 151.0 in text": (
        "a.ply",
        ply([*XYZ, *RGB], rows(POINTS, COLORS.astype(float)).encode(), form="ascii"),
    ),
    "ply: fractions in byte columns of text": (
        "a.ply",
        ply([*XYZ, *RGB], rows(POINTS, COLORS / 255).encode(), form="ascii"),
    ),
    "ply: colors ahead": ("a.ply", ply([*RGB, *XYZ], packed(**rgb("u1"), **xyz()))),
    "ply: packed, as the Point Cloud Library writes": (
        "a.ply", ply([*XYZ, ("uint", "rgba")], packed(**xyz(), c=("<u4", BITS | 0xFF000000)))),
    "ply: packed, big endian": (
        "a.ply", ply([*XYZ, ("uint", "rgb")], packed(**xyz(">f4"), c=(">u4", BITS)), form="binary_big_endian")),
    "ply: packed in text": ("a.ply", ply([*XYZ, ("uint", "rgb")], rows(POINTS, BITS).encode(), form="ascii")),
    "npy: structured, packed": ("a.npy", npy(np.rec.fromarrays([*POINTS.T, BITS], names="x,y,z,rgb"))),
    "npy: structured, packed in a float": (
        "a.npy", npy(np.rec.fromarrays([*POINTS.T, BITS.view(np.float32)], names="x,y,z,rgb"))),
    "npz: each column apart": (
        "a.npz", npz(X=POINTS[:, 0], Y=POINTS[:, 1], Z=POINTS[:, 2], r=COLORS[:, 0], g=COLORS[:, 1], b=COLORS[:, 2])),
    "npy: six rows": ("a.npy", npy(np.r_[POINTS.T, COLORS.T])),
    "off: points with colors": ("a.off", f"COFF\n{COUNT} 0 0\n{rows(POINTS, COLORS)}".encode()),
    "pcd: packed in a float": ("a.pcd", pcd("x y z rgb", "4 4 4 4", "F F F F", packed(**xyz(), c=("<u4", BITS)))),
    "pcd: packed in a whole number": (
        "a.pcd", pcd("x y z rgb", "4 4 4 4", "F F F U", packed(**xyz(), c=("<u4", BITS)))),
    "pcd: packed with an alpha": (
        "a.pcd",
        pcd("x y z rgba", "4 4 4 4", "F F F U", packed(**xyz(), c=("<u4", BITS | 0xFF000000))),
    ),
    "pcd: packed in upper case": ("a.pcd", pcd("X Y Z RGB", "4 4 4 4", "F F F U", packed(**xyz(), c=("<u4", BITS)))),
    "pcd: packed as a tiny float in text": (
        "a.pcd", pcd("x y z rgb", "4 4 4 4", "F F F F", TEXT_FLOATS.encode(), "ascii")),
    "pcd: packed as a whole number in text": (
        "a.pcd",
        pcd("x y z rgb", "4 4 4 4", "F F F U", rows(POINTS, BITS).encode(), "ascii"),
    ),
    "pcd: packed as a negative number in text": (
        "a.pcd",
        pcd("x y z rgba", "4 4 4 4", "F F F I", rows(POINTS, (BITS | 0xFF000000).view(np.int32)).encode(), "ascii"),
    ),
    "pcd: columns of bytes": ("a.pcd", pcd("x y z r g b", "4 4 4 1 1 1", "F F F U U U", packed(**xyz(), **rgb("u1")))),
    "pcd: columns of reals": (
        "a.pcd",
        pcd("x y z red green blue", "4 4 4 4 4 4", "F F F F F F", packed(**xyz(), **rgb("<f4"))),
    ),
    "npz: bytes": ("a.npz", npz(points=POINTS, colors=COLORS)),
    "npz: fractions": ("a.npz", npz(points=POINTS, rgb=COLORS / 255)),
    "npz: reals up to 255": ("a.npz", npz(points=POINTS, colors=COLORS.astype(np.float32))),
    "npz: 16 bits": ("a.npz", npz(points=POINTS, colors=COLORS.astype(np.uint16) * 257)),
    "npz: whole numbers of 64 bits": ("a.npz", npz(points=POINTS, colors=COLORS.astype(np.int64))),
    "npz: with alpha": ("a.npz", npz(points=POINTS, colors=np.c_[COLORS, 255 + 0 * COLORS[:, :1]])),
    "npy: six columns": ("a.npy", npy(np.c_[POINTS, COLORS])),
    "npy: six columns of fractions": ("a.npy", npy(np.c_[POINTS, COLORS / 255])),
    "npy: a label behind": ("a.npy", npy(np.c_[POINTS, COLORS, np.arange(COUNT) % 9])),
    "obj: fractions behind": (
        "a.obj",
        "".join(f"v {line}\n" for line in rows(POINTS, COLORS / 255).splitlines()).encode(),
    ),
    "obj: bytes behind": ("a.obj", "".join(f"v {line}\n" for line in rows(POINTS, COLORS).splitlines()).encode()),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLORED)
def test_colors_are_those_of_the_points(kind: str, tmp_path: Path) -> None:
    name, content = COLORED[kind]
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name)
    np.testing.assert_allclose(found.points, POINTS, rtol=1e-6, atol=2e-6)
    assert found.colors is not None
    assert np.abs(found.colors.astype(int) - COLORS).max() <= 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ply", ply([*XYZ, *RGB], packed(**xyz(), **rgb("u1", 0)))),
        ("a.pcd", pcd("x y z rgb", "4 4 4 4", "F F F U", packed(**xyz(), c=("<u4", 0 * BITS)))),
        ("a.npz", npz(points=POINTS, colors=0 * COLORS)),
        ("a.ply", ply([*XYZ, *(("float", name) for _, name in RGB)], packed(**xyz(), **rgb("<f4", -1)))),
        ("a.ply", ply([*XYZ, ("uchar", "red")], packed(**xyz(), r=("u1", COLORS[:, 0])))),
    ],
)  # fmt: skip
def test_zero_negative_and_partial_colors_are_none(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert not open_scan(tmp_path / name).has_colors
    assert read(tmp_path / name).colors is None


DARK = (COLORS > 127).astype(np.uint16)
DARK_COLUMNS = xyz() | {name: ("<u2", DARK[:, place]) for place, name in enumerate("rgb")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ply", ply([*XYZ, *(("ushort", name) for name in "rgb")], packed(**DARK_COLUMNS))),
        ("a.pcd", pcd("x y z r g b", "4 4 4 2 2 2", "F F F U U U", packed(**DARK_COLUMNS))),
        ("a.npz", npz(points=POINTS, colors=DARK)),
    ],
)
def test_dark_colors_of_whole_numbers_are_no_fractions(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / name).colors, DARK)


MESH = ply([*XYZ, *RGB], packed(**xyz(), **rgb("u1"))).replace(
    b"end_header", b"element face 1\n" + FACE_LIST + b"end_header"
) + struct.pack("<B3i", 3, 0, 1, 2)


def test_a_mesh_gives_its_vertices_where_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(MESH)
    assert "is a mesh with 1 faces" in refusal(tmp_path / "a.ply")
    assert "--use-vertices" in refusal(tmp_path / "a.ply")
    found = read(tmp_path / "a.ply", ScanOptions(use_vertices=True))
    np.testing.assert_allclose(found.points, POINTS, rtol=1e-6)
    np.testing.assert_array_equal(found.colors, COLORS)
    (tmp_path / "a.obj").write_text("".join(f"v {x} {y} {z}\n" for x, y, z in POINTS) + "f 1 2 3\n")
    assert "--use-vertices" in refusal(tmp_path / "a.obj")
    np.testing.assert_allclose(read(tmp_path / "a.obj", ScanOptions(use_vertices=True)).points, POINTS)
    (tmp_path / "a.off").write_text(f"OFF\n{COUNT} 1 0\n" + rows(POINTS) + "3 0 1 2\n")
    assert "--use-vertices" in refusal(tmp_path / "a.off")
    np.testing.assert_allclose(
        read(tmp_path / "a.off", ScanOptions(use_vertices=True)).points, POINTS, atol=1e-6
    )


def test_points_of_a_format_for_meshes_are_refused_without_a_circle(tmp_path: Path) -> None:
    trimesh.PointCloud(POINTS).export(tmp_path / "a.glb")
    assert "points of this format are not read; save them as PLY" in refusal(
        tmp_path / "a.glb", ScanOptions(use_vertices=True)
    )


def las(path: Path, version: str = "1.2", kind: int = 2, **columns: np.ndarray) -> bytes:
    header = laspy.LasHeader(version=version, point_format=kind)
    header.scales = [1e-6] * 3
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = POINTS.T
    for name, values in columns.items():
        setattr(cloud, name, values)
    cloud.write(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("scale", [1, 256, 257])
def test_las_colors_of_8_and_16_bits(suffix: str, scale: int, tmp_path: Path) -> None:
    shades = COLORS.astype(np.uint16) * scale
    las(tmp_path / f"a{suffix}", red=shades[:, 0], green=shades[:, 1], blue=shades[:, 2])
    found = read(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found.points, POINTS, atol=1e-6)
    np.testing.assert_array_equal(found.colors, COLORS)


def test_las_colors_that_nobody_filled_are_none(tmp_path: Path) -> None:
    las(tmp_path / "a.las")
    assert read(tmp_path / "a.las").colors is None


@pytest.mark.parametrize("kind", [6, 1])
def test_las_1_4_with_only_the_legacy_count(kind: int, tmp_path: Path) -> None:
    data = bytearray(las(tmp_path / "a.las", "1.4", kind))
    struct.pack_into("<I", data, 107, COUNT)
    struct.pack_into("<Q", data, 247, 0)
    (tmp_path / "a.las").write_bytes(data)
    np.testing.assert_allclose(read(tmp_path / "a.las").points, POINTS, atol=1e-6)


def test_las_noise_and_withheld_points_are_left_out_and_counted(tmp_path: Path) -> None:
    classes = np.full(COUNT, 2)
    classes[:5], classes[5:8], classes[8:10] = 7, 18, 6
    withheld = np.zeros(COUNT, int)
    withheld[20:24] = 1
    las(tmp_path / "a.las", "1.4", 6, classification=classes, withheld=withheld)
    found = read(tmp_path / "a.las")
    assert found.left_out == {"marked as withheld": 4, "of class 7 (noise)": 5, "of class 18 (noise)": 3}
    assert len(found.points) == COUNT - 12
    everything = read(tmp_path / "a.las", ScanOptions(drop_classes=(), keep_withheld=True))
    assert len(everything.points) == COUNT
    assert len(read(tmp_path / "a.las", ScanOptions(keep_classes=(6,))).points) == 2
    assert len(read(tmp_path / "a.las", ScanOptions(keep_classes=(7,))).points) == 5


def test_las_returns_can_be_chosen(tmp_path: Path) -> None:
    number, returns = np.arange(COUNT) % 3 + 1, np.full(COUNT, 3)
    las(tmp_path / "a.las", return_number=number, number_of_returns=returns)
    first, last = (read(tmp_path / "a.las", ScanOptions(returns=which)) for which in ("first", "last"))
    np.testing.assert_allclose(first.points, POINTS[::3], atol=1e-6)
    np.testing.assert_allclose(last.points, POINTS[2::3], atol=1e-6)
    assert last.left_out == {"not the last return": COUNT - COUNT // 3}


def geo_keys(path: Path, keys: dict[int, int], citation: str = "") -> None:
    """Write a LAS file whose header has GeoTIFF keys, made byte by byte; key 3073 is the citation."""
    cloud = laspy.create(point_format=0)
    cloud.header.scales = [1e-6] * 3
    cloud.x, cloud.y, cloud.z = POINTS.T
    entries = [(k, 0, 1, v) for k, v in keys.items()]
    if citation:
        entries.append((3073, 34737, len(citation) + 1, 4))
        text = f"NAD|{citation}|".encode() + b"\0"
        cloud.header.vlrs.append(laspy.VLR("LASF_Projection", 34737, "", text))
    data = struct.pack("<4H", 1, 1, 0, len(entries)) + b"".join(
        struct.pack("<4H", *entry) for entry in entries
    )
    cloud.header.vlrs.append(laspy.VLR("LASF_Projection", 34735, "", data))
    cloud.write(path)


def test_las_tells_its_reference_system_and_refuses_degrees(tmp_path: Path) -> None:
    geo_keys(tmp_path / "a.las", {1024: 1, 3072: 32632, 3076: 9001})
    assert (open_scan(tmp_path / "a.las").crs, open_scan(tmp_path / "a.las").crs_unit) == ("EPSG:32632", "m")
    geo_keys(tmp_path / "b.las", {1024: 1, 3072: 2263, 3076: 9003})
    assert open_scan(tmp_path / "b.las").crs_unit == "us-ft"
    geo_keys(tmp_path / "c.las", {1024: 2, 2048: 4326})
    assert "degrees" in refusal(tmp_path / "c.las")
    cloud = laspy.create(point_format=6, file_version="1.4")
    cloud.x, cloud.y, cloud.z = POINTS.T
    wkt = 'PROJCS["x",GEOGCS["y"],UNIT["US survey foot",0.3048006]]'
    cloud.header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "", wkt.encode() + b"\0"))
    cloud.write(tmp_path / "d.las")
    reader = open_scan(tmp_path / "d.las")
    assert (reader.crs, reader.crs_unit) == (wkt, "us-ft")
    geo_keys(tmp_path / "e.las", {1024: 1, 3072: 32767, 3076: 9003}, "Oregon South, local")
    reader = open_scan(tmp_path / "e.las")
    assert (reader.crs, reader.crs_unit) == ("Oregon South, local", "us-ft")
    geo_keys(tmp_path / "f.las", {1024: 1, 3072: 32767, 3076: 9001})
    assert open_scan(tmp_path / "f.las").crs is None


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_reference_system_behind_the_points_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    cloud = laspy.create(point_format=6, file_version="1.4")
    cloud.header.scales = [1e-6] * 3
    cloud.x, cloud.y, cloud.z = POINTS.T
    wkt = 'PROJCS["x",GEOGCS["y"],UNIT["metre",1],AUTHORITY["EPSG","25832"]]'
    other = laspy.VLR("someone", 7, "", b"\0" * 5000)
    cloud.evlrs = VLRList([other, laspy.VLR("LASF_Projection", 2112, "", wkt.encode() + b"\0")])
    cloud.write(path)
    reader = open_scan(path)
    assert (reader.crs, reader.crs_unit) == (wkt, "m")
    np.testing.assert_allclose(read(path).points, POINTS, atol=1e-6)
    degrees = laspy.VLR("LASF_Projection", 2112, "", b'GEOGCS["WGS 84"]\0')
    cloud.evlrs = VLRList([degrees])
    cloud.write(path)
    assert "degrees" in refusal(path)
    # A count or a size that the file cannot hold costs nothing, and the points are still there.
    cloud.evlrs = VLRList([other])
    cloud.write(path)
    whole = path.read_bytes()
    (start,) = struct.unpack_from("<Q", whole, 235)
    for place, value in ((243, b"\xff" * 4), (start + 20, b"\xff" * 7), (235, b"\xff" * 8)):
        path.write_bytes(whole[:place] + value + whole[place + len(value) :])
        assert open_scan(path).crs is None
        assert len(read(path).points) == COUNT


@pytest.mark.parametrize("unit", ["mm", "cm", "ft", "us-ft"])
def test_units_are_brought_to_meters(unit: str, tmp_path: Path) -> None:
    meters = {"mm": 0.001, "cm": 0.01, "ft": 0.3048, "us-ft": 1200 / 3937}[unit]
    np.save(tmp_path / "a.npy", POINTS / meters)
    found = read(tmp_path / "a.npy", ScanOptions(unit=unit))
    np.testing.assert_allclose(found.points, POINTS, rtol=1e-12)


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_the_axis_that_points_up_becomes_z_by_a_rotation(up: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=POINTS, normals=NORMALS)
    found = read(tmp_path / "a.npz", ScanOptions(up=up, stations=((0, 0, 0),)))
    np.testing.assert_allclose(found.points[:, 2], POINTS[:, "xyz".index(up)])
    turn = np.linalg.lstsq(POINTS, found.points, rcond=None)[0]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1)
    np.testing.assert_allclose(found.normals, NORMALS @ turn, atol=1e-6)
    towards = -POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    np.testing.assert_allclose(found.directions, towards @ turn, atol=1e-6)


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_glb_that_is_y_up_by_its_format_is_turned_once(up: str, tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.glb", POINTS, np.array([[0, 1, 2]]))
    options = ScanOptions(use_vertices=True, up=up)  # type: ignore[arg-type]
    np.testing.assert_allclose(read(tmp_path / "a.glb", options).points, POINTS, atol=1e-5)


def test_each_point_is_seen_from_the_nearest_given_station(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    stations = np.array([[0.0, 20, 5], [30.0, 20, 5]])
    found = read(tmp_path / "a.npy", ScanOptions(stations=tuple(map(tuple, stations.tolist()))))
    nearest = stations[(POINTS[:, 0] > 15).astype(int)]
    nearest = stations[np.argmin(np.linalg.norm(POINTS[:, None] - stations, axis=2), axis=1)]
    towards = (nearest - POINTS) / np.linalg.norm(nearest - POINTS, axis=1, keepdims=True)
    np.testing.assert_allclose(found.directions, towards, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pcd", pcd("x y z pad", "4 4 4 4", "F F F F", b"\0" * 64, COUNT="1 1 1 400000000"),
         ("bytes for each point",)),
        ("a.pcd", pcd("x y z", "4 4 4", "F F F", struct.pack("<II", 30, 2**32 - 1) + b"\0" * 30,
                      "binary_compressed", count=(2**32 - 1) // 12), ("header is damaged",)),
        ("a.pcd", pcd("x y z", "4 4 4", "F F F", struct.pack("<II", 30, 12 * 10**8) + b"\0" * 30,
                      "binary_compressed", count=10**8), ("cannot expand",)),
        ("a.ply", ply([*XYZ, ("list uint int", "l")], packed(**xyz(), n=("<u4", np.full(COUNT, 2**32 - 1)))),
         ("truncated",)),
        ("a.ply", ply(XYZ, b"\0" * 12, count=10**15), ("truncated",)),
        ("a.npz", npz(points=np.zeros((2, 10**6))), ("bytes in a row",)),
        ("a.npz", npz(other=POINTS, another=POINTS), ("has no array 'points'", "'other'")),
        ("a.npy", npy(np.zeros(5, [("u", "<f4"), ("v", "<f4")])), ("no fields x, y and z", "u, v")),
        ("a.ply", b"ply\nformat ascii 1.0\nelement face 0\nend_header\n", ("no vertices",)),
        ("a.rcp", b"x", ("unknown scan format", "ReCap")),
        ("a.zip", b"PK\3\4", ("unpack it first",)),
        ("a.e57.gz", gzip.compress(b"ASTM-E57" + b"\0" * 99, mtime=0), ("gunzip",)),
        ("a.ply.gz", gzip.compress(ply(XYZ, packed(**xyz())), mtime=0)[:-30], ("a.ply.gz",)),
    ],
)  # fmt: skip
def test_what_claims_too_much_or_lacks_points_is_refused_by_its_fact(
    name: str, content: bytes, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert all(word in message for word in words), message


def colmap_points(colors: np.ndarray = COLORS) -> bytes:
    """A points3D.bin byte by byte: tracks of 0 to 4 pictures."""
    data = struct.pack("<Q", COUNT)
    for number, (point, color) in enumerate(zip(POINTS, colors.tolist(), strict=True)):
        track = number % 5
        data += struct.pack("<Q3d3Bd", number * 7, *point, *color, 0.25)
        data += struct.pack(f"<Q{2 * track}i", track, *range(2 * track))
    return data


def test_colmaps_binary_points_are_read_by_their_name(tmp_path: Path) -> None:
    (tmp_path / "points3D.bin").write_bytes(colmap_points())
    found = read(tmp_path / "points3D.bin")
    np.testing.assert_array_equal(found.points, POINTS)
    np.testing.assert_array_equal(found.colors, COLORS)
    (tmp_path / "points3D.bin").write_bytes(colmap_points(0 * COLORS))
    assert read(tmp_path / "points3D.bin").colors is None
    for cut in (4, 20, 20 * COUNT, 60 * COUNT, len(colmap_points()) - 1):
        (tmp_path / "points3D.bin").write_bytes(colmap_points()[:cut])
        assert "truncated" in refusal(tmp_path / "points3D.bin") or cut == 4
    (tmp_path / "cameras.bin").write_bytes(colmap_points())
    assert "only COLMAP's points3D.bin" in refusal(tmp_path / "cameras.bin")


def test_a_las_header_with_more_records_than_bytes_is_refused(tmp_path: Path) -> None:
    data = bytearray(las(tmp_path / "a.las"))[:399]
    struct.pack_into("<II", data, 96, 2**32 - 1, 79_000_000)
    (tmp_path / "a.las").write_bytes(data)
    assert "promises 79,000,000 records before the points" in refusal(tmp_path / "a.las")


def layered_laz(path: Path, kind: int, count: int) -> NDArray[np.float64]:
    """Points of LAS 1.4 with extra bytes, compressed in chunks of 50,000."""
    header = laspy.LasHeader(version="1.4", point_format=kind)
    header.add_extra_dims([laspy.ExtraBytesParams("height", "f4"), laspy.ExtraBytesParams("flag", "u1")])
    header.scales = np.full(3, 0.001)
    points = np.random.default_rng(kind).uniform(-50, 50, (count, 3)).round(3)
    cloud = laspy.LasData(header)
    cloud.xyz = points
    cloud.write(path)
    return points


@pytest.mark.parametrize("kind", [6, 7, 8])
def test_compressed_layers_of_many_chunks_and_extra_bytes(kind: int, tmp_path: Path) -> None:
    points = layered_laz(tmp_path / "many.laz", kind, 120_001)
    np.testing.assert_allclose(read(tmp_path / "many.laz").points, points, atol=1e-6)


@pytest.mark.parametrize("layer", range(10))
def test_a_compressed_layer_larger_than_the_file_is_refused_before_it_is_decoded(
    layer: int, tmp_path: Path
) -> None:
    path = tmp_path / "claim.laz"
    layered_laz(path, 7, 60)
    with laspy.open(path) as file:
        start, row = file.header.offset_to_point_data, file.header.point_format.size
    data = bytearray(path.read_bytes())
    place = start + 8 + row + 4 + 4 * layer  # behind the table's place, a point, and the number of points
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(
        ScanError, match=r"claim.laz: is truncated or damaged after point 0 of 60 .*ends early"
    ):
        open_scan(path)
