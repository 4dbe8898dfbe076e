"""Mesh files with their writers' quirks: each holds the same box, or is refused by the name of what is wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.description import describe
from preprocessing.errors import MeshError
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.meshes.files import open_mesh_writer, read_mesh, write_mesh
from preprocessing.meshes.ply import strips_to_faces
from preprocessing.metrics import evaluate_mesh
from preprocessing.scan_files import ScanOptions

BOX = trimesh.creation.box(extents=(1, 2, 3))
VERTICES, FACES = np.asarray(BOX.vertices), np.asarray(BOX.faces)
CORNERS = VERTICES[FACES]
V = "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in VERTICES)
F = "".join(f"f {a} {b} {c}\n" for a, b, c in FACES + 1)


def quads() -> str:
    """The six sides as polygons of four corners, seen from outside."""
    lines = ""
    for side in BOX.facets:
        corners = np.unique(FACES[side])
        middle, normal = VERTICES[corners].mean(axis=0), BOX.face_normals[side[0]]
        first = VERTICES[corners[0]] - middle
        second = np.cross(normal, first)
        around = np.arctan2((VERTICES[corners] - middle) @ second, (VERTICES[corners] - middle) @ first)
        lines += "f " + " ".join(str(number + 1) for number in corners[np.argsort(around)]) + "\n"
    return lines


def stl(count: int = 12, head: bytes = b"by hand") -> bytes:
    rows = np.zeros(12, [("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")])
    rows["c"] = CORNERS
    return head.ljust(80) + struct.pack("<I", count) + rows.tobytes()


def polygons(form: str) -> bytes:
    """Faces and quadrangles in turn, with a flag and texture coordinates at each face and an element ahead."""
    loops = [[int(word) - 1 for word in line.split()[1:]] for line in (quads() + F).splitlines()]
    loops = [*loops[:3], *(row for row in loops[6:] if not any(set(row) <= set(quad) for quad in loops[:3]))]
    header = (
        f"ply\nformat {form} 1.0\nelement camera 1\nproperty float f\nelement vertex 8\nproperty float x\n"
    )
    header += f"property float y\nproperty float z\nelement face {len(loops)}\nproperty uchar flags\n"
    header += "property list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
    if form == "ascii":
        rows = ["1.5", *(f"{x:g} {y:g} {z:g}" for x, y, z in VERTICES)]
        rows += [f"7 {len(loop)} {' '.join(map(str, loop))} 2 0.5 0.25" for loop in loops]
        return (header + "\n".join(rows) + "\n").encode()
    order = "<" if "little" in form else ">"
    body = struct.pack(f"{order}f", 1.5) + VERTICES.astype(f"{order}f4").tobytes()
    for loop in loops:
        body += struct.pack(f"{order}BB{len(loop)}iB2f", 7, len(loop), *loop, 2, 0.5, 0.25)
    return header.encode() + body


STL_TEXT = "solid box\n" + "".join(
    "facet normal 0 0 0\n outer loop\n" + "".join(f"  vertex {x:e} {y:e} {z:e}\n" for x, y, z in face)
    + " endloop\nendfacet\n" for face in CORNERS
) + "endsolid box\n"  # fmt: skip
OFF_BODY = "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in VERTICES) + "".join(
    f"3 {a} {b} {c}\n" for a, b, c in FACES
)
BOXES: dict[str, tuple[str, bytes | str]] = {
    "obj": ("a.obj", V + F),
    "obj: indices from the end": ("a.obj", V + "".join(f"f {a - 8} {b - 8} {c - 8}\n" for a, b, c in FACES)),
    "obj: indices from the end between vertices": (
        "a.obj",
        "".join("".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in face) + "f -3 -2 -1\n" for face in CORNERS),
    ),
    "obj: faces ahead of the vertices": ("a.obj", F + V),
    "obj: comments behind values": ("a.obj", (V + F).replace("\n", " # note\n")),
    "obj: texture seams": (
        "a.obj",
        V + "vt 0 0\nvt 1 0\nvt 0 1\n" + "".join(f"f {a}/1 {b}/2 {c}/3\n" for a, b, c in FACES + 1),
    ),
    "obj: normals of the sides": (
        "a.obj",
        V + "".join(f"vn {x} {y} {z}\n" for x, y, z in BOX.face_normals)
        + "".join(f"f {a}//{n} {b}//{n} {c}//{n}\n" for n, (a, b, c) in enumerate(FACES + 1, 1)),
    ),
    "obj: polygons": ("a.obj", V + quads()),
    "obj: a line in two": ("a.obj", V + F.replace(" ", " \\\n ", 1)),
    "obj: Windows, groups, materials": (
        "a.obj", f"mtllib no.mtl\no box\n{V}g a\nusemtl b\ns off\n{F}".replace("\n", "\r\n")),
    "obj: weights": ("a.obj", V.replace("\n", " 1.0\n") + F),
    "obj: every corner for itself": (
        "a.obj",
        "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in CORNERS.reshape(-1, 3))
        + "".join(f"f {n} {n + 1} {n + 2}\n" for n in range(1, 37, 3)),
    ),
    "stl": ("a.stl", stl()),
    "stl: bytes behind": ("a.stl", stl() + b"trailing"),
    "stl: begins with solid": ("a.stl", stl(head=b"solid made by a tool")),
    "stl: text": ("a.stl", STL_TEXT),
    "stl: text in capitals of Windows": ("a.stl", STL_TEXT.upper().replace("\n", "\r\n")),
    "off": ("a.off", f"OFF\n8 12 0\n{OFF_BODY}"),
    "off: counts on the first line": ("a.off", f"OFF 8 12 18\n{OFF_BODY}"),
    "off: glued, as ModelNet has it": ("a.off", f"OFF8 12 0\n{OFF_BODY}"),
    "off: comments and blank lines": ("a.off", f"# box\nOFF\n# counts\n8 12 0\n\n{OFF_BODY.replace('3 ', '  3 ')}"),
    "off: colored faces": ("a.off", "OFF\n8 12 0\n" + "".join(
        line + (" 255 0 0\n" if line.startswith("3 ") else "\n") for line in OFF_BODY.splitlines())),
    "ply: polygons of several sizes": ("a.ply", polygons("ascii")),
    "ply: polygons of several sizes, binary": ("a.ply", polygons("binary_little_endian")),
    "ply: polygons of several sizes, big endian": ("a.ply", polygons("binary_big_endian")),
    "ply under another name": ("a.obj", trimesh.exchange.ply.export_ply(BOX)),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOXES)
def test_every_dress_of_the_box_encloses_the_same_volume(kind: str, tmp_path: Path) -> None:
    name, content = BOXES[kind]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_mesh(tmp_path / name)
    metrics = evaluate_mesh(
        found.vertices, found.faces, VERTICES, FACES, sample_count=500, volume_queries=2000
    )
    assert metrics.iou == 1.0
    assert metrics.chamfer_l1 < 1e-6
    assert metrics.normal_consistency_signed == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", ["stl: text", "off"])
def test_info_says_what_evaluate_will_find(kind: str, tmp_path: Path) -> None:
    name, content = BOXES[kind]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert any("encloses volume: yes" in line for line in describe(tmp_path / name, ScanOptions()))
    apart = trimesh.Trimesh(CORNERS.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    apart.export(tmp_path / "apart.ply")
    assert any("encloses volume: yes" in line for line in describe(tmp_path / "apart.ply", ScanOptions()))
    trimesh.Trimesh(apart.vertices, apart.faces[:-1], process=False).export(tmp_path / "open.ply")
    assert any("encloses volume: no" in line for line in describe(tmp_path / "open.ply", ScanOptions()))


@pytest.mark.parametrize("head", ["OFF\n# a cloud\n200 0 0\n", "OFF200 0 0\n", "COFF 200 0 0\n"])
def test_info_describes_a_cloud_in_off_as_a_scan(head: str, tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(200, 3))
    (tmp_path / "a.off").write_text(head + "".join(f"{x} {y} {z}\n" for x, y, z in points))
    assert "scan of 200 points" in describe(tmp_path / "a.off", ScanOptions())[0]
    (tmp_path / "a.off").write_text(f"OFF 8 12 0\n{OFF_BODY}")
    assert "mesh of 8 vertices" in describe(tmp_path / "a.off", ScanOptions())[0]


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_our_own_files_score_1_against_our_ply(suffix: str, tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.ply", VERTICES, FACES)
    write_mesh(tmp_path / f"b{suffix}", VERTICES, FACES)
    mesh, truth = read_mesh(tmp_path / f"b{suffix}"), read_mesh(tmp_path / "a.ply")
    metrics = evaluate_mesh(
        mesh.vertices, mesh.faces, truth.vertices, truth.faces, sample_count=500, volume_queries=2000
    )
    assert metrics.iou == 1.0


def test_a_glb_with_seams_encloses_volume(tmp_path: Path) -> None:
    apart = trimesh.Trimesh(CORNERS.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    apart.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    upright = np.stack([VERTICES[:, 0], -VERTICES[:, 2], VERTICES[:, 1]], axis=1)
    metrics = evaluate_mesh(mesh.vertices, mesh.faces, upright, FACES, sample_count=500, volume_queries=2000)
    assert metrics.iou == 1.0


def with_extension(path: Path, name: str) -> None:
    """Have a GLB file require an extension."""
    BOX.export(path)
    data = path.read_bytes()
    room = struct.unpack_from("<I", data, 12)[0]
    content = json.loads(data[20 : 20 + room]) | {"extensionsUsed": [name], "extensionsRequired": [name]}
    text = json.dumps(content).encode()
    text = text.ljust(len(text) + -len(text) % 4)
    rest = data[20 + room :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest)) + struct.pack(
        "<I4s", len(text), b"JSON"
    )
    path.write_bytes(head + text + rest)


def test_required_extensions_are_named_with_the_cure(tmp_path: Path) -> None:
    for name, what in (
        ("KHR_draco_mesh_compression", "Draco"),
        ("EXT_meshopt_compression", "meshopt"),
        ("VENDOR_secret", "VENDOR_secret"),
    ):
        with_extension(tmp_path / "a.glb", name)
        with pytest.raises(MeshError, match=what) as error:
            read_mesh(tmp_path / "a.glb")
        assert "save it without" in str(error.value)
    with_extension(tmp_path / "a.glb", "KHR_materials_unlit")
    assert len(read_mesh(tmp_path / "a.glb").faces) == 12


def test_strips_make_faces_that_all_turn_the_same_way() -> None:
    faces = strips_to_faces(np.array([0, 1, 2, 3, -1, 4, 5, 6, -1, 7, 7, 8, -1]))
    assert faces.tolist() == [[0, 1, 2], [2, 1, 3], [4, 5, 6]]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_tristrips_of_old_scans(form: str, tmp_path: Path) -> None:
    header = (
        f"ply\nformat {form} 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    )
    header += "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    corners, strip = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], float), np.array([4, 0, 1, 2, 3])
    if form == "ascii":
        body = "".join(f"{x} {y} {z}\n" for x, y, z in corners) + " ".join(map(str, strip)) + "\n"
        (tmp_path / "a.ply").write_text(header + body)
    else:
        order = "<" if "little" in form else ">"
        body = corners.astype(f"{order}f4").tobytes() + strip.astype(f"{order}i4").tobytes()
        (tmp_path / "a.ply").write_bytes(header.encode() + body)
    found = read_mesh(tmp_path / "a.ply")
    np.testing.assert_array_equal(found.vertices, corners)
    assert found.faces.tolist() == [[0, 1, 2], [2, 1, 3]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.obj", V, "holds no faces"),
        ("a.obj", V + "f 1 2 x\n", "line 9 is damaged"),
        ("a.obj", V + "f 1 2 -9\n", "no vertex -9"),
        ("a.obj", V + "f 1 2 9\n", "missing vertices"),
        ("a.obj", "v 1 2\nf 1 1 1\n", "line 1 is damaged"),
        ("a.stl", stl()[:-60], "promises 12 faces and holds 10"),
        ("a.stl", stl(2**32 - 1), "promises 4,294,967,295 faces and holds 12"),
        ("a.stl", STL_TEXT[: STL_TEXT.rindex("vertex")], "not three corners"),
        ("a.off", f"OFF\n8 13 0\n{OFF_BODY}", "promises 8 vertices and 13 faces and holds 8 and 12"),
        ("a.off", f"OFF BINARY\n8 12 0\n{OFF_BODY}", "binary"),
        ("a.glb", b"glTF" + struct.pack("<II", 2, 5000) + struct.pack("<I4s", 4000, b"JSON"), "truncated"),
        ("a.ply", b"", "0 bytes"),
    ],
)
def test_damage_is_named_by_its_fact(name: str, content: bytes | str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MeshError, match=words) as error:
        read_mesh(tmp_path / name)
    assert name in str(error.value)


def test_obj_colors_and_agreeing_normals_are_kept(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (8, 3)).astype(np.uint8)
    normals = VERTICES / np.linalg.norm(VERTICES, axis=1, keepdims=True)
    write_mesh(tmp_path / "a.obj", VERTICES, FACES, normals, colors)
    found = read_mesh(tmp_path / "a.obj")
    np.testing.assert_array_equal(found.colors, colors)
    np.testing.assert_allclose(found.normals, normals, atol=1e-5)


WKT = """PROJCS["WGS 84 / UTM zone 32N", GEOGCS["WGS 84", AUTHORITY["EPSG","4326"]],
    UNIT["meter",1], AUTHORITY["EPSG","32632"]]"""


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
@pytest.mark.parametrize("crs", ["EPSG:32632", WKT, None])
def test_outputs_carry_the_reference_system_in_one_line(suffix: str, crs: str | None, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with open_mesh_writer(path, 8, 12, False, (0, 0, 0), crs=crs) as writer:
        writer.vertices(VERTICES, VERTICES.astype(np.float32), None)
        writer.faces(FACES)
    head = path.read_bytes()[:2048]
    assert (b"EPSG:32632" in head) == (crs is not None)
    assert len(read_mesh(path).faces) == 12
    assert trimesh.load(path, force="mesh").is_volume
