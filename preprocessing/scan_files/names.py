"""Which column is what, by its name: as spreadsheets, survey programs, scanners and ParaView write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

NORMAL_NAMES = ("nx", "ny", "nz")
COLOR_NAMES = ("red", "green", "blue")
AXES = ("x", "y", "z")

_UNIT = re.compile(r"\s*[\[({<].*?[\])}>]\s*$")  # x (m), y [mm]
_METRES = re.compile(r"[ _.]?(?:m|cm|mm|ft|meters?|metres?|feet)$")  # x_m
_BEFORE = (
    r"(?:field|pos(?:ition)?s?|points?|pts?|coord(?:inate)?s?|cart(?:esian)?|utm|world|global|local|loc|location|scalar"
    r"|point3d|xyz|ecef|enu|map)"
)
_PREFIX = re.compile(rf"^(?:{_BEFORE}[ _.:\-/]?)+([xyz])$")
_SUFFIX = re.compile(rf"^([xyz])[ _.:\-]?{_BEFORE}$")
_INDEXED = re.compile(r"^(?:points?(?:_m)?(?:_xyz)?|xyz|pos(?:itions?)?|coord(?:inate)?s?)[:_\[ ]([012])\]?$")
_NORMAL = re.compile(r"^(?:n|normals?|norm|scalar_n|vn)[ _.:\-]?([xyz])$|^([xyz])[ _.:\-]?normal$")
_NORMAL_INDEXED = re.compile(r"^normals?[:_\[ ]([012])\]?$")
_COLOR = re.compile(
    r"^(?:(?:diffuse|scalar|colou?r|rgba?|vertex|point)[ _.:\-]?)?(red|green|blue|r|g|b)"
    r"(?:[ _.:\-]?(?:f|colou?r|channel|value|8|16))?$"
)
_COLOR_INDEXED = re.compile(r"^(?:rgba?|colou?rs?)[:_\[ ]([012])\]?$")
# Axes under other names; a whole set must be there. Easting is x and northing y, whatever their order in the file.
_HEIGHTS = ("height", "elevation", "elev", "altitude", "alt", "h", "cota", "quota", "hoehe", "höhe", "level")
_OTHER_AXES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("easting", "east", "eastings", "este", "leste", "est", "rechtswert", "rechts", "ostwert", "ost", "e"),
        ("northing", "north", "northings", "norte", "nord", "hochwert", "hoch", "nordwert", "n"),
        (*_HEIGHTS, "z", "rl", "up", "u"),
    ),
    (("x",), ("y",), _HEIGHTS),
)  # fmt: skip
# What may stand before such a name: UTM_E, ellipsoidal height.
_QUALIFIER = re.compile(
    r"^(?:(?:utm|grid|local|map|ellip(?:soid(?:al)?)?|ortho(?:metric)?|geoid(?:al)?|msl)[ _.\-]+)+"
)
_DEGREES = re.compile(
    r"^(?:(?:gps|wgs|wgs84|geo)[ _.\-]?)?(?:lat|latitude|latitud|lon|long|lng|longitude|longitud|breite|breitengrad"
    r"|länge|laenge|längengrad|laengengrad)(?:[ _.\-]?(?:deg|degrees|wgs84|dd|x|y))?$"
)
_NO_AXES = {
    "time", "timestamp", "stamp", "gpstime", "gps_time", "range", "distance", "azimuth", "angle", "theta", "phi", "rho",
    "id", "index", "intensity", "label", "class", "row", "column", "col",
}  # fmt: skip


def clean_name(name: str) -> str:
    """A column's name in lower case, without quotes, comment marks, a unit behind it and the point of an abbreviation.

    Of two names for one column, as in `X/Easting`, the second says more.
    """
    plain = name.strip().strip("\ufeff").lstrip("#/%!; ").strip().strip("\"'").strip().lower()
    plain = _UNIT.sub("", plain) or plain
    first, _, second = plain.partition("/")
    return (second if first in AXES and second else plain).rstrip(".")


def column_roles(names: Sequence[str]) -> dict[str, int]:
    """Where x, y, z, nx, ny, nz, red, green and blue are among columns of these names; others are left out.

    Sets are whole: all three axes, all three colors, or none. Exact names win over prefixed ones, so that
    `X` is taken where `Ori_x` stands beside it.
    """
    plain = [clean_name(name) for name in names]
    bare = [_METRES.sub("", name) if len(name) > 1 else name for name in plain]
    short = [_QUALIFIER.sub("", name) for name in bare]
    roles: dict[str, int] = {}
    axes = (
        _exact(plain, AXES)
        or _exact(bare, AXES)
        or _matching(plain, _PREFIX)
        or _matching(bare, _PREFIX)
        or _matching(plain, _SUFFIX)
        or _matching(bare, _SUFFIX)
        or _matching(plain, _INDEXED, "012")
        or next(
            filter(None, (_one_of(words, sets) for sets in _OTHER_AXES for words in (plain, bare, short))),
            None,
        )
    )
    if axes:
        roles |= dict(zip(AXES, axes, strict=True))
    normals = _matching(plain, _NORMAL) or _matching(plain, _NORMAL_INDEXED, "012")
    if normals:
        roles |= dict(zip(NORMAL_NAMES, normals, strict=True))
    colors = (
        _exact(plain, COLOR_NAMES)
        or _matching(plain, _COLOR, "rgb")
        or _matching(plain, _COLOR_INDEXED, "012")
    )
    if colors:
        roles |= dict(zip(COLOR_NAMES, colors, strict=True))
    return roles


def are_degrees(names: Sequence[str]) -> bool:
    """Whether columns of these names are geographic: latitude or longitude, and no x, y, z beside them."""
    plain = [clean_name(name) for name in names]
    return any(_DEGREES.match(name) for name in plain) and not all(
        axis in column_roles(names) for axis in AXES
    )


def begin_with_others(names: Sequence[str]) -> bool:
    """Whether one of the first three columns is by its name no coordinate, so that they are not x, y and z."""
    return any(clean_name(name) in _NO_AXES for name in names[:3])


def repeated_axis(names: Sequence[str]) -> str | None:
    """An axis that two columns bear, or None."""
    plain = [clean_name(name) for name in names]
    return next((axis for axis in AXES if plain.count(axis) > 1), None)


def _exact(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    return [names.index(name) for name in wanted] if all(name in names for name in wanted) else None


def _matching(names: Sequence[str], pattern: re.Pattern[str], keys: Sequence[str] = AXES) -> list[int] | None:
    """The first column for each key, which is the first letter of what the pattern finds in its name."""
    places: dict[str, int] = {}
    for number, name in enumerate(names):
        if match := pattern.match(name):
            places.setdefault(next(filter(None, match.groups()))[0], number)
    return [places[key] for key in keys] if all(key in places for key in keys) else None


def _one_of(names: Sequence[str], sets: tuple[tuple[str, ...], ...]) -> list[int] | None:
    found = [next((names.index(word) for word in words if word in names), None) for words in sets]
    places = [place for place in found if place is not None]
    return places if len(set(places)) == 3 else None
