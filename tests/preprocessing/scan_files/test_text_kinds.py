"""Text clouds as spreadsheets, survey programs, photogrammetry and scanners write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from preprocessing.scan_files import ScanOptions
from tests.preprocessing.scan_files.clouds import COLORS, COUNT, NORMALS, POINTS, read, refusal, rows

IDS = np.arange(COUNT)
X, Y, Z = POINTS.T
FRACTIONS = COLORS / 255.0
WORDS = np.array([f"P{number}" for number in IDS])
TIMES = np.array([f"2026-11-27T10:{number // 60:02d}:{number % 60:02d}.5Z" for number in IDS])


def csv(header: str, *columns: np.ndarray, separator: str = ",", **options: str) -> str:
    return f"{header}\n" + rows(*columns, separator=separator, **options)


def quoted(text: str) -> str:
    return "".join(",".join(f'"{word}"' for word in line.split(",")) + "\n" for line in text.splitlines())


def decimal_commas(text: str) -> str:
    return text.replace(".", ",")


PLAIN: dict[str, tuple[str, str]] = {
    "a blank in a header name and an id first": ("a.csv", csv("Point ID,X,Y,Z", IDS, POINTS)),
    "units in brackets": ("a.csv", csv("ID,X (m),Y (m),Z (m)", IDS, POINTS)),
    "units in square brackets": ("a.csv", csv("X[m],Y[m],Z[m],I[-]", POINTS, IDS)),
    "units behind an underscore": ("a.csv", csv("x_m,y_m,z_m", POINTS)),
    "northing before easting": ("a.csv", csv("Northing,Easting,Height", Y, X, Z)),
    "easting, northing, elevation": ("a.csv", csv("Pt,Easting,Northing,Elevation,Code", IDS, POINTS, WORDS)),
    "E, N, H": ("a.txt", csv("N\tE\tH", Y, X, Z, separator="\t")),
    "German survey": ("a.csv", csv("Punkt;Rechtswert;Hochwert;Höhe", IDS, POINTS, separator=";")),
    "Spanish survey": ("a.csv", csv("Punto,Este,Norte,Cota", IDS, POINTS)),
    "POINT_X of a GIS": ("a.csv", csv("FID,POINT_X,POINT_Y,POINT_Z", IDS, POINTS)),
    "ParaView arrays": ("a.csv", csv('"Points:0","Points:1","Points:2"', POINTS)),
    "VeloView": (
        "a.csv",
        csv(
            '"Points_m_XYZ:0","Points_m_XYZ:1","Points_m_XYZ:2","intensity","laser_id","timestamp"',
            POINTS,
            IDS,
            IDS,
            IDS,
        ),
    ),
    "old VeloView, points last": (
        "a.csv",
        csv('"intensity","laser_id","Points:0","Points:1","Points:2"', IDS, IDS, POINTS),
    ),
    "Livox with hexadecimal codes and Ori_x": (
        "a.csv",
        csv(
            "Version,Slot ID,Error Code,Timestamp,X,Y,Z,Reflectivity,Ori_x,Ori_y,Ori_z",
            IDS,
            IDS,
            np.array(["0x00000000"] * COUNT),
            IDS,
            POINTS,
            IDS,
            POINTS[::-1] * 1000,
        ),
    ),
    "ROS topics": ("a.csv", csv("%time,field.header.seq,field.x,field.y,field.z", IDS, IDS, POINTS)),
    "a text column first": ("a.csv", csv("name,x,y,z", WORDS, POINTS)),
    "times between": ("a.csv", csv("x,time,y,z", X, TIMES, Y, Z)),
    "z y x": ("a.csv", csv("z,y,x", Z, Y, X)),
    "every value in quotes": ("a.csv", quoted(csv("x,y,z", POINTS))),
    "a comma inside quotes": ("a.csv", csv("x,y,z,note", POINTS, np.array(['"wall, north"'] * COUNT))),
    "row names without a title, of R": ("a.txt", '"x" "y" "z"\n' + rows(np.array([f'"{n + 1}"' for n in IDS]), POINTS)),
    "an index without a title, of pandas": ("a.csv", csv(",x,y,z", IDS, POINTS)),
    "names behind a hash": ("a.txt", "# x y z\n" + rows(POINTS)),
    "CloudCompare's header and count": ("a.asc", f"//X Y Z\n{COUNT}\n" + rows(POINTS)),
    "CloudCompare with scalar fields": (
        "a.asc",
        "//X Y Z R G B Scalar_field Nx Ny Nz\n" + rows(POINTS, COLORS, IDS, NORMALS),
    ),
    "a title above the names": ("a.csv", "Survey of the site\n\n" + csv("x,y,z", POINTS)),
    "comments of many programs": ("a.txt", "# one\n// two\n; three\n% four\n! five\n" + rows(POINTS)),
    "comments between points": ("a.txt", rows(POINTS[:9]) + "# pause\n\n" + rows(POINTS[9:])),
    "lines that end with a separator": ("a.csv", csv("x,y,z", POINTS).replace("\n", ",\n")),
    "vertical bars": ("a.txt", csv("x|y|z", POINTS, separator="|")),
    "mixed separators": ("a.txt", "".join(f"{x:.6f},{y:.6f},{z:.6f} 7\n" for x, y, z in POINTS)),
    "exponents of Fortran": ("a.txt", rows(POINTS, form="%.8e").replace("e", "D")),
    "exponents": ("a.txt", rows(POINTS, form="%.12e")),
    "plus signs": ("a.txt", "".join("+" + line.replace(" ", " +") + "\n" for line in rows(POINTS).splitlines())),
    "several blanks and tabs": ("a.xyz", rows(POINTS, separator=" \t  ")),
    "lines of old Macs": ("a.xyz", rows(POINTS).replace("\n", "\r")),
    "lines of Windows": ("a.xyz", rows(POINTS).replace("\n", "\r\n")),
    "PTS with one count": ("a.pts", f"{COUNT}\n" + rows(POINTS, IDS - 100)),
    "PTS with a count for each scan": ("a.pts", f"100\n{rows(POINTS[:100])}{COUNT - 100}\n{rows(POINTS[100:])}"),
    "returns and classes of las2txt are no colors": ("a.txt", rows(POINTS, IDS % 3 + 1, 0 * IDS + 3, IDS % 5 + 2)),
    "decimal commas between semicolons": ("a.csv", csv("X;Y;Z", POINTS, separator=";").replace(".", ",")),
    "decimal commas between tabs": ("a.txt", decimal_commas(csv("X\tY\tZ", POINTS, separator="\t"))),
    "decimal commas between blanks": ("a.xyz", decimal_commas(rows(POINTS))),
    "decimal commas in quotes": ("a.csv", '"x","y","z"\n' + "".join(
        ",".join('"' + f"{value:.6f}".replace(".", ",") + '"' for value in row) + "\n" for row in POINTS)),
    "decimal commas beside ids with points": (
        "a.csv",
        csv("ID;X;Y;Z", np.array([f"1.{number}" for number in IDS]), np.array([
            [f"{value:.6f}".replace(".", ",") for value in row] for row in POINTS]), separator=";")),
    "numbers for names, of pandas": ("a.csv", csv("0,1,2", POINTS)),
    "numbers for names, and an intensity": ("a.csv", csv("0,1,2,3", POINTS, NORMALS[:, 0])),
    "Metashape's reference": ("a.txt", "# CoordinateSystem: LOCAL\n" + csv(
        "#Label,X/Easting,Y/Northing,Z/Altitude", WORDS, POINTS)),
    "abbreviations with points": ("a.csv", csv("EASTING(M),NORTHING(M),ELEV.(M)", POINTS)),
    "ellipsoidal height": ("a.csv", csv("Name,Easting,Northing,Ellipsoidal height", WORDS, POINTS)),
    "orthometric height": ("a.csv", csv("Name,Northing,Easting,Ortho. Height", WORDS, Y, X, Z)),
    "UTM_E and UTM_N": ("a.csv", csv("UTM_E,UTM_N,H", POINTS)),
    "X_UTM": ("a.csv", csv("X_UTM,Y_UTM,Z_UTM", POINTS)),
    "Ost and Nord": ("a.csv", csv("Ost;Nord;Höhe", POINTS, separator=";")),
    "Italian survey": ("a.csv", csv("Punto;Nord;Est;Quota", IDS, Y, X, Z, separator=";")),
    "Portuguese survey": ("a.csv", csv("Leste,Norte,Cota", POINTS)),
    "a DAT file": ("a.dat", rows(POINTS)),
    "hundreds of columns": ("a.xyz", rows(POINTS, np.tile(IDS[:, None], (1, 700)))),
    "an ECEF prefix": ("a.csv", csv("ecef_x,ecef_y,ecef_z", POINTS)),
    "coordinates called by the word": ("a.csv", csv("X-coordinate,Y-coordinate,Z-coordinate", POINTS)),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
def test_points_are_found_whatever_is_around_them(kind: str, tmp_path: Path) -> None:
    name, content = PLAIN[kind]
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    found = read(tmp_path / name)
    np.testing.assert_allclose(found.points, POINTS, rtol=0, atol=2e-6)
    assert (found.colors is not None) == ("R G B" in content)


COLORED: dict[str, tuple[str, str]] = {
    "COLMAP's points": (
        "points3D.txt",
        "# 3D point list\n#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n"
        + "".join(
            f"{n} {x:.6f} {y:.6f} {z:.6f} {r} {g} {b} 0.5" + " 1 7" * (n % 5 + 1) + "\n"
            for n, ((x, y, z), (r, g, b)) in enumerate(zip(POINTS, COLORS, strict=True))
        ),
    ),
    "COLMAP's points with tracks of one length": (
        "points.txt",
        "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n"
        + rows(IDS, POINTS, COLORS, FRACTIONS[:, 0], IDS, IDS),
    ),
    "COLMAP's points without a header": (
        "points3D.txt",
        rows(IDS, POINTS, COLORS, FRACTIONS[:, 0], IDS, IDS),
    ),
    "numpy.savetxt": ("a.txt", rows(POINTS, COLORS.astype(float), form="%.18e")),
    "bytes written as 151.0 with an alpha": (
        "a.xyz",
        rows(POINTS, COLORS.astype(float), 255.0 + 0 * X, form="%.6f"),
    ),
    "bytes with an alpha": ("a.xyz", rows(POINTS, COLORS, 255 + 0 * IDS)),
    "fractions and a label": ("a.txt", rows(POINTS, FRACTIONS, IDS % 13)),
    "fractions": ("a.xyzrgb", rows(POINTS, FRACTIONS)),
    "bytes and a label": ("a.txt", rows(POINTS, COLORS, IDS % 13)),
    "bytes, a label and an instance": ("a.txt", rows(POINTS, COLORS, IDS % 13, IDS)),
    "PTS with intensity first": ("a.pts", f"{COUNT}\n" + rows(POINTS, IDS, COLORS)),
    "16 bits without names, of las2txt": ("a.txt", rows(POINTS, COLORS.astype(int) * 257)),
    "16 bits without names, intensity first": (
        "a.txt",
        rows(POINTS, FRACTIONS[:, 0], COLORS.astype(int) * 257),
    ),
    "16 bits without names, a class last": ("a.txt", rows(POINTS, COLORS.astype(int) * 256, IDS % 9)),
    "negative intensity first": ("a.txt", rows(POINTS, IDS - 2000, COLORS)),
    "bytes by name": ("a.csv", csv("x,y,z,R,G,B", POINTS, COLORS)),
    "fractions by name": ("a.csv", csv("x,y,z,rf,gf,bf", POINTS, FRACTIONS)),
    "16 bits by name": ("a.csv", csv("x,y,z,Red,Green,Blue", POINTS, COLORS.astype(int) * 257)),
    "16 bits times 256": ("a.csv", csv("x,y,z,Red,Green,Blue", POINTS, COLORS.astype(int) * 256)),
    "colors ahead of the points": ("a.csv", csv("RED,GREEN,BLUE,X,Y,Z", COLORS, POINTS)),
    "ParaView's colors": (
        "a.csv",
        csv('"RGB:0","RGB:1","RGB:2","Points:0","Points:1","Points:2"', COLORS, POINTS),
    ),
    "normals between": ("a.txt", rows(POINTS, NORMALS, COLORS, form="%.8f")),
    "normals behind": ("a.txt", rows(POINTS, COLORS, NORMALS, form="%.8f")),
    "prefixes": ("a.csv", csv("pos_x,pos_y,pos_z,color_r,color_g,color_b", POINTS, COLORS)),
}


@pytest.mark.parametrize("kind", COLORED)
def test_colors_are_those_of_the_points(kind: str, tmp_path: Path) -> None:
    name, content = COLORED[kind]
    (tmp_path / name).write_text(content)
    found = read(tmp_path / name)
    np.testing.assert_allclose(found.points, POINTS, rtol=0, atol=2e-6)
    assert found.colors is not None
    assert np.abs(found.colors.astype(int) - COLORS).max() <= 1
    assert (found.normals is not None) == ("normals" in kind)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32", "latin-1"])
def test_any_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(csv("Höhe\tX\tY\tZ", IDS, POINTS, separator="\t").encode(encoding))
    np.testing.assert_allclose(read(tmp_path / "a.txt").points, POINTS, atol=1e-6)


def test_a_gzipped_file_is_read_as_the_file_in_it(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(csv("id,x,y,z", IDS, POINTS))
    np.testing.assert_allclose(read(tmp_path / "a.csv.gz").points, POINTS, atol=1e-6)
    data = (tmp_path / "a.csv.gz").read_bytes()
    (tmp_path / "b.csv.gz").write_bytes(data[:-40])
    assert "gzip data is truncated or damaged" in refusal(tmp_path / "b.csv.gz")


@pytest.mark.parametrize(
    "word",
    [
        "nan",
        "NaN",
        "-nan",
        "-nan(ind)",
        "1.#QNAN",
        "-1.#IND",
        "NA",
        "N/A",
        "null",
        "",
        "--",
        "<NA>",
        "?",
        "#NV",
        "#VALUE!",
        "****",
    ],
)
def test_missing_numbers_in_any_spelling_do_not_shift_the_others(word: str, tmp_path: Path) -> None:
    lines = csv("x,y,z,q", POINTS, IDS).splitlines()
    lines[5] = f"1.5,{word},3.5,4"
    (tmp_path / "a.csv").write_text("\n".join(lines))
    points = read(tmp_path / "a.csv").points
    np.testing.assert_array_equal(points[4], [1.5, np.nan, 3.5])
    assert np.isfinite(np.delete(points, 4, axis=0)).all()


def test_whole_numbers_ahead_of_decimal_commas_do_not_hide_them(tmp_path: Path) -> None:
    for separator in (";", "\t", "|"):
        lines = decimal_commas(rows(POINTS, separator=separator))
        (tmp_path / "a.csv").write_text(
            separator.join("XYZ") + "\n" + f"1{separator}2{separator}3\n" * 500 + lines
        )
        found = read(tmp_path / "a.csv").points
        np.testing.assert_array_equal(found[:500], np.tile([1, 2, 3], (500, 1)))
        np.testing.assert_allclose(found[500:], POINTS, atol=1e-6)


def test_exponents_of_fortran_without_their_letter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1.5D+02 -2.5d0 1.25-101\n.5+100 1.+002 -3.0E-1\n")
    expected = [[150, -2.5, 1.25e-101], [0.5e100, 100, -0.3]]
    np.testing.assert_array_equal(read(tmp_path / "a.txt").points, expected)


def test_infinity_is_kept_for_the_check_of_finite_points(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n1.#INF,-inf,Infinity\n")
    np.testing.assert_array_equal(read(tmp_path / "a.csv").points[1], [np.inf, -np.inf, np.inf])


@pytest.mark.parametrize(
    ("columns", "content"),
    [
        ("id,x,y,z", rows(IDS, POINTS)),
        ("x,,y,z", rows(X, IDS, Y, Z)),
        ("z,y,x", csv("a,b,c", Z, Y, X)),
        ("name,x,y,z", rows(WORDS, POINTS, separator=",")),
        ("x,y,z", csv("lat,lon,h", POINTS)),
    ],
)
def test_the_user_may_name_the_columns(columns: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    found = read(tmp_path / "a.csv", ScanOptions(columns=tuple(columns.split(","))))
    np.testing.assert_allclose(found.points, POINTS, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.csv",
            csv("RelativeTime,Latitude,Longitude,Elevation", IDS, POINTS),
            ("line 1", "degrees", "project"),
        ),
        ("a.csv", csv("lat_deg,lon_deg,alt", POINTS), ("degrees", "project")),
        ("a.csv", csv("Lat.,Long.,Elev.", POINTS), ("degrees", "project")),
        ("a.csv", csv("GPSLatitude,GPSLongitude,GPSAltitude", POINTS), ("degrees", "project")),
        ("a.csv", csv("Breitengrad;Längengrad;Höhe", POINTS, separator=";"), ("degrees", "project")),
        ("a.txt", csv("#Label,X/Longitude,Y/Latitude,Z/Altitude", WORDS, POINTS), ("degrees", "project")),
        (
            "a.txt",
            "# range azimuth elevation\n" + rows(POINTS),
            ("line 1", "range, azimuth, elevation", "--columns"),
        ),
        ("a.txt", "# timestamp x y\n" + rows(POINTS), ("timestamp, x, y", "--columns")),
        ("a.xyz", rows(IDS // 20, IDS % 20, POINTS, COLORS), ("first two columns", "grid", "--columns")),
        ("a.xyz", rows(IDS % 7, POINTS), ("first column holds whole numbers", "--columns")),
        ("a.csv", "X;Y;Z\n1.204,50;2.000,25;3.100,00\n", ("line 2", "1.204,50", "thousands separators")),
        (
            "a.csv",
            'X,Y,Z\n"1,204.50","2,000.25","3,100.00"\n',
            ("line 2", "1,204.50", "thousands separators"),
        ),
        ("a.csv", csv("x,y,z", WORDS, WORDS, WORDS), ("line 2 is not x y z",)),
        ("a.csv", csv("a,b,c", POINTS), ("line 1 names no x, y and z but a, b, c", "--columns")),
        ("a.csv", csv("time,range,angle,echo", IDS, POINTS), ("time, range, angle, echo", "--columns")),
        ("a.csv", csv("x,y,value", POINTS), ("names no x, y and z but x, y, value",)),
        ("a.csv", csv("x,y,z,x", POINTS, X), ("names x twice", "--columns")),
        ("a.csv", csv("id,x,y,z,i", POINTS, IDS), ("names 5 columns", "the rows hold 4", "--columns")),
        ("a.txt", rows(IDS, POINTS), ("first column counts the rows", "--columns")),
        ("a.txt", rows(1.7e9 + 0.1 * IDS, POINTS), ("first column holds times", "--columns")),
        (
            "a.txt",
            rows(0.1 * IDS, POINTS, NORMALS, 0 * X),
            ("poses",),
        ),
        ("a.csv", "x,y,z\n", ("holds no points behind its header", "export finished")),
        ("a.csv", csv("x,y,z", POINTS) + "1.0,2.0\n", (f"line {COUNT + 2} has not 3", "'1.0,2.0'")),
        ("a.csv", csv("x,y,z", POINTS) + "1.0,oops,2.0\n", (f"line {COUNT + 2}", "'oops' is no number")),
        ("a.csv", "x,y,z\n1,2,3\n" + "9" * (3 << 20), ("characters", "no text point cloud")),
        ("a.xyz", "\0\1\2\3" * 999, ("binary file",)),
        ("a.pts", f"{COUNT + 1}\n" + rows(POINTS), (f"promises {COUNT + 1} points", f"holds {COUNT}")),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_cure(
    name: str, content: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    message = refusal(tmp_path / name)
    assert all(word in message for word in words), message


def test_all_zero_colors_and_normals_are_none(tmp_path: Path) -> None:
    zeros = np.zeros((COUNT, 3), int)
    (tmp_path / "a.csv").write_text(csv("x,y,z,r,g,b,nx,ny,nz", POINTS, zeros, zeros))
    found = read(tmp_path / "a.csv")
    assert found.colors is None
    assert found.normals is None


def test_one_bright_point_far_behind_decides_the_scale_of_all(tmp_path: Path) -> None:
    colors = np.ones((150_000, 3), int)
    colors[149_000] = 200
    (tmp_path / "a.csv").write_text(csv("x,y,z,r,g,b", np.tile(POINTS, (625, 1)), colors))
    found = read(tmp_path / "a.csv", chunk=50_000)
    assert found.colors is not None
    np.testing.assert_array_equal(found.colors, colors)


def ptx(stations: list[np.ndarray], rotation: np.ndarray, colored: bool) -> str:
    """Scans of several stations, each in the scanner's own frame, with an empty return each."""
    text = ""
    for number, station in enumerate(stations):
        mine = slice(number * COUNT // len(stations), (number + 1) * COUNT // len(stations))
        local = (POINTS[mine] - station) @ rotation  # the inverse of a rotation on columns
        shades = (COLORS[mine],) if colored else ()
        text += f"{len(local) + 1}\n1\n" + rows(station[None]) + rows(rotation.T)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[3, :3] = rotation.T, station
        text += rows(matrix, form="%.12f") + rows(local, 0.5 + 0 * local[:, 0], *shades, form="%.9f")
        text += "0 0 0 0.5" + (" 0 0 0" if colored else "") + "\n"
    return text


@pytest.mark.parametrize("colored", [False, True])
def test_ptx_scans_come_in_the_common_frame_with_their_stations(colored: bool, tmp_path: Path) -> None:
    stations = [np.array([1.0, 2.0, 3.0]), np.array([30.0, -5.0, 1.5])]
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    (tmp_path / "a.ptx").write_text(ptx(stations, turn, colored))
    found = read(tmp_path / "a.ptx")
    np.testing.assert_allclose(found.points, POINTS, atol=1e-6)
    assert found.left_out == {"without a return, (0, 0, 0)": 2}
    towards = np.repeat(stations, COUNT // 2, axis=0) - POINTS
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    np.testing.assert_allclose(found.directions, towards, atol=1e-6)
    if colored:
        np.testing.assert_array_equal(found.colors, COLORS)
    else:
        assert found.colors is None


def test_blank_lines_between_the_scans_of_a_ptx_are_passed_over(tmp_path: Path) -> None:
    scan = ptx([np.array([1.0, 2.0, 3.0])], np.eye(3), True)
    (tmp_path / "a.ptx").write_text(f"{scan}\n{scan}\n\n{scan}\n", newline="\r\n")
    np.testing.assert_allclose(read(tmp_path / "a.ptx").points, np.tile(POINTS, (3, 1)), atol=1e-6)
    (tmp_path / "a.ptx").write_text(f"{scan}\n{scan}\n\nnonsense\n")
    line = scan.count("\n") * 2 + 4
    assert f"lines {line:,} to {line + 9:,} are no PTX header" in refusal(tmp_path / "a.ptx")


@pytest.mark.parametrize("cut", [5, 300, -200])
def test_a_cut_ptx_is_refused(cut: int, tmp_path: Path) -> None:
    text = ptx([np.zeros(3)], np.eye(3), False)
    (tmp_path / "a.ptx").write_text(text[:cut])
    assert "a.ptx" in refusal(tmp_path / "a.ptx")
