"""How the lines of a text cloud are to be read: separator, decimal mark, header, columns."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocessing.errors import ScanError
from preprocessing.scan_files.guessing import UnclearColumnsError, guess_columns
from preprocessing.scan_files.names import (
    AXES,
    are_degrees,
    begin_with_others,
    clean_name,
    column_roles,
    repeated_axis,
)
from preprocessing.scan_files.tables import number

COMMENTS = ("#", "//", ";", "%", "!")
SAMPLE_LINES, HEADER_LINES = 200, 1000
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eEdD][+-]?\d+)?")
_GROUPED = re.compile(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:'\d{3})+[.,]\d+")
_WHOLE = re.compile(r"[+-]?\d+")
_COLMAP = ("POINT3D_ID", "X", "Y", "Z", "R", "G", "B", "ERROR")
_MIXED = str.maketrans(",;|\t", "    ")


@dataclass(frozen=True)
class Dialect:
    """What separates the values of a line.

    Attributes:
        separator: one of , ; | and tab; blanks if it is empty, and blanks or any of these if it is 'mixed'.
        has_decimal_commas: 1,5 stands for 1.5.
    """

    separator: str
    has_decimal_commas: bool = False

    def split(self, line: str) -> list[str]:
        """The values of a line, still as text; decimal commas become points."""
        if self.separator == "mixed":
            words = line.translate(_MIXED).split()
        elif '"' in line:
            words = next(csv.reader([line], delimiter=self.separator or " ", skipinitialspace=True), [])
        else:
            words = line.split(self.separator or None)
        if self.separator:
            words = [word.strip() for word in words]
        return [word.replace(",", ".") for word in words] if self.has_decimal_commas else words


@dataclass(frozen=True)
class TextLayout:
    """How a text cloud is to be read.

    Attributes:
        dialect: what separates values.
        width: number of columns; None where lines differ behind the ones that are read (COLMAP's tracks).
        roles: columns by what they are (x, y, z, red, ...).
        labels: for each role, what to tell the user of its column.
        lines_before: lines ahead of the first point.
        count: number of points that the file declares, or None.
        is_plain: all columns are numbers, so that lines can be read at once.
        is_named: a header or the user names the columns.
    """

    dialect: Dialect
    width: int | None
    roles: dict[str, int]
    labels: dict[str, str]
    lines_before: int
    count: int | None
    is_plain: bool
    is_named: bool


def is_number(word: str) -> bool:
    """Whether a word is a number in any spelling; an empty one is a missing number."""
    try:
        number(word)
    except ValueError:
        return False
    return True


def is_comment(line: str) -> bool:
    """Whether a line is a comment."""
    return line.lstrip().startswith(COMMENTS)


def find_dialect(lines: Sequence[str]) -> Dialect:
    """What separates the values of lines that hold points."""
    filled = [line.strip() for line in lines if line.strip()]
    for separator in (";", "\t", "|"):
        if filled and all(line.count(separator) >= 2 for line in filled):
            rows = [Dialect(separator).split(line) for line in filled]
            words = [word for row in rows for word in row]
            if any(" " in word and all(map(is_number, word.split())) for word in words):
                return Dialect("mixed")
            return Dialect(separator, _are_commas_decimal(rows))
    blank = [line.replace('"', "").split() for line in filled]
    if all(
        len(row) >= 3 and all(_DECIMAL_COMMA.fullmatch(word) or _WHOLE.fullmatch(word) for word in row[:3])
        for row in blank
    ) and any(_DECIMAL_COMMA.fullmatch(word) for row in blank for word in row[:3]):
        return Dialect("", True)
    if filled and all(re.sub(r'"[^"]*"', "", line).count(",") >= 2 for line in filled):
        rows = [Dialect(",").split(line) for line in filled]
        quoted_decimals = any('"' in line for line in filled) and any(
            _DECIMAL_COMMA.fullmatch(word) for row in rows for word in row
        )
        if any(" " in word and all(map(is_number, word.split())) for row in rows for word in row):
            return Dialect("mixed")
        return Dialect(",", quoted_decimals)
    return Dialect("mixed" if any(mark in line for line in filled for mark in ",;|\t") else "")


def _are_commas_decimal(rows: Sequence[Sequence[str]]) -> bool:
    """Whether commas stand for decimal points: in columns without points, or where all numbers so far are whole."""
    with_points = {place for row in rows for place, word in enumerate(row) if "." in word and is_number(word)}
    with_commas = {place for row in rows for place, word in enumerate(row) if _DECIMAL_COMMA.fullmatch(word)}
    return not with_points & with_commas and bool(with_commas or not with_points)


def find_layout(path: Path, lines: Sequence[str], columns: Sequence[str] = ()) -> TextLayout:
    """The layout of a text cloud.

    Args:
        path: for messages; a name such as `points3D.txt` and the suffix `.pts` count.
        lines: the first lines of the file.
        columns: names that the user gave; they replace the file's own.

    Raises:
        ScanError: if the lines hold no points, or if it cannot be told which columns are x, y and z.
    """
    titles: list[tuple[int, str]] = []
    mixed: tuple[int, str] | None = None
    count: int | None = None
    if path.name.lower().split(".")[0] == "points3d" and not columns:
        titles.append((0, ", ".join(_COLMAP)))
    for at, line in enumerate(lines[:HEADER_LINES]):
        plain = line.strip().strip("\ufeff")
        if not plain:
            continue
        if is_comment(plain):
            titles.append((at, plain))
            continue
        if plain.isdigit() and len(plain) < 15:
            count = int(plain)  # PTS and CloudCompare's ASCII files declare their number of points
            continue
        if _numbers_columns(plain, lines[at + 1 : at + SAMPLE_LINES]):
            continue
        sample = [text for text in lines[at : at + SAMPLE_LINES] if text.strip() and not is_comment(text)]
        dialect = find_dialect([text for text in sample if not text.strip().isdigit()][:20])
        words = dialect.split(plain)
        has_numbers = [word != "" and is_number(word) for word in words]
        if not any(has_numbers) or (columns and not _fits(words, columns)):
            titles.append((at, plain))
            continue
        rows = [dialect.split(text) for text in sample if not text.strip().isdigit()]
        found = _named(path, titles, dialect, sample[0], rows, columns) if len(words) >= 3 else None
        is_named = found is not None
        if found is None and len(words) >= 3 and all(is_number(word) for word in words):
            _refuse_names_without_axes(path, titles, dialect, words)
            if mixed is not None and len(dialect.split(mixed[1])) == len(words):
                raise not_points(path, *mixed)
            found = _guessed(path, rows)
        if found is not None:
            # Each line may end with a separator.
            filled = [row[:-1] if row[-1] == "" else row for row in rows]
            is_plain = (
                found.width is not None
                and not any('"' in text for text in sample)
                and all(is_number(word) and word for row in filled for word in row)
            )
            return TextLayout(dialect, found.width, found.roles, found.labels, at, count, is_plain, is_named)
        _refuse_names_without_axes(path, titles, dialect, words)
        mixed = mixed or (at, plain)
    if mixed is not None:
        raise not_points(path, *mixed)
    plain_titles = [(at, text) for at, text in titles if not is_comment(text)]
    for (_, text), behind in itertools.pairwise(plain_titles):
        if _has_axes(text):
            raise not_points(path, *behind)
    told = next((text for _, text in titles if not is_comment(text)), None)
    if told is not None and any(name for _, name in titles if _has_axes(name)):
        raise ScanError(
            f"{path}: holds no points behind its header {told[:60]!r}; check that the export finished"
        )
    raise ScanError(f"{path}: holds no points; check that it is a point cloud and that the export finished")


def _numbers_columns(line: str, below: Sequence[str]) -> bool:
    """Whether a line is 0, 1, 2, ... above rows with decimals: the names that pandas gives to columns without any."""
    words = line.translate(_MIXED).split()
    counted = [str(number) for number in range(len(words))]
    filled = [text for text in below if text.strip() and not is_comment(text)]
    return len(words) >= 3 and words == counted and bool(filled) and all("." in text for text in filled)


def _fits(words: Sequence[str], columns: Sequence[str]) -> bool:
    roles = column_roles(columns)
    return len(words) >= len(columns) and all(
        is_number(words[place]) and words[place] for place in roles.values()
    )


def not_points(path: Path, at: int, line: str) -> ScanError:
    """The error of a line that is neither a header nor a point."""
    if grouped := _GROUPED.search(line):
        return ScanError(
            f"{path}: line {at + 1} groups its digits ({grouped[0]}); export numbers without thousands separators"
        )
    return ScanError(
        f"{path}: line {at + 1} is not x y z: {line[:60]!r}; mark lines that are no points with '#', or name the "
        "columns, as in --columns name,x,y,z"
    )


def _headers(text: str, dialect: Dialect) -> list[list[str]]:
    """A title split in every way that its program may have meant."""
    plain = text.strip().lstrip("#/%!; ").strip()
    splits: list[Callable[[str], list[str]]] = [dialect.split]
    splits += [
        Dialect(mark).split
        for mark in (",", ";", "\t", "|", "")
        if mark != dialect.separator and (not mark or mark in plain)
    ]
    return [split(plain) for split in splits]


def _has_axes(text: str) -> bool:
    return any(all(axis in column_roles(names) for axis in AXES) for names in _headers(text, Dialect("")))


@dataclass(frozen=True)
class _Found:
    """Columns by role, what to call them, and the width that lines have (None if it varies)."""

    roles: dict[str, int]
    labels: dict[str, str]
    width: int | None


def _named(
    path: Path,
    titles: list[tuple[int, str]],
    dialect: Dialect,
    first: str,
    rows: Sequence[Sequence[str]],
    columns: Sequence[str],
) -> _Found | None:
    """The columns by the user's names or by the latest title that names them, or None; `first` is the first row."""
    width = len(rows[0])
    if columns:
        roles = column_roles(columns)
        if not all(axis in roles for axis in AXES):
            raise ScanError(f"{path}: --columns must name x, y and z; it names {', '.join(columns)}")
        return _Found(
            roles, _labels(roles, columns), width if all(len(row) == width for row in rows) else None
        )
    for at, text in reversed(titles):
        for names in _headers(text, dialect):
            roles = column_roles(names)
            if not all(axis in roles for axis in AXES) or len(names) < 3:
                continue
            repeated = repeated_axis(names)
            if repeated:
                raise ScanError(
                    f"{path}: line {at + 1} names {repeated} twice ({', '.join(names)[:80]}); choose with --columns"
                )
            if len(names) == width - 1 and rows[0][-1] == "":
                names = [*names, ""]  # each line ends with a separator
            elif len(names) == width - 1 and _counts_up(rows):
                names = ["", *names]  # row names without a title, as R writes them
                roles = {role: place + 1 for role, place in roles.items()}
            ragged = [place for place, name in enumerate(names) if name.upper().startswith("TRACK[]")]
            if ragged or [name.upper() for name in names] == list(_COLMAP):
                return _Found(roles, _labels(roles, names), None)
            if len(names) == width and _are_numbers(rows, roles):
                return _Found(roles, _labels(roles, names), width)
            if not is_comment(text) and text is titles[-1][1] and len(names) != width and len(names) > 3:
                raise ScanError(
                    f"{path}: line {at + 1} names {len(names)} columns ({', '.join(names)[:80]}), the rows "
                    f"hold {width} ({first.strip()[:60]!r}); name them with --columns"
                )
    return None


def _are_numbers(rows: Sequence[Sequence[str]], roles: dict[str, int]) -> bool:
    """Whether the axes are numbers in nearly all rows; a damaged one is told when it is read."""
    if len(rows[0]) <= max(roles.values()):
        return False
    good = sum(len(row) == len(rows[0]) and all(is_number(row[roles[axis]]) for axis in AXES) for row in rows)
    return good > 0.5 * len(rows)


def _counts_up(rows: Sequence[Sequence[str]]) -> bool:
    first = [row[0].strip('"') for row in rows if row]
    return all(word.isdigit() for word in first) and [int(word) for word in first] in (
        list(range(len(first))),
        list(range(1, len(first) + 1)),
    )


def _labels(roles: dict[str, int], names: Sequence[str]) -> dict[str, str]:
    return {role: f"column {place + 1} {names[place].strip()!r}" for role, place in roles.items()}


def _refuse_names_without_axes(
    path: Path, titles: list[tuple[int, str]], dialect: Dialect, words: Sequence[str]
) -> None:
    """Refuse a header that names the columns but no x, y and z: the first three would be something else."""
    for at, text in reversed(titles):
        for names in _headers(text, dialect):
            if len(names) not in (len(words), len(words) - (words[-1] == "")):
                continue
            if are_degrees(names):
                raise ScanError(
                    f"{path}: line {at + 1} names latitude and longitude ({', '.join(names)[:80]}): geographic "
                    "degrees are not meters; project the points first, for example to their UTM zone"
                )
            told = [clean_name(name) for name in names]
            is_header = begin_with_others(names) if is_comment(text) else all(told)
            if is_header and all(axis not in column_roles(names) for axis in AXES):
                raise ScanError(
                    f"{path}: line {at + 1} names no x, y and z but {', '.join(names)[:120]}; say which columns are, "
                    "as in --columns x,y,z"
                )


def _guessed(path: Path, rows: Sequence[Sequence[str]]) -> _Found:
    width = len(rows[0])
    alike = [row for row in rows if len(row) == width and all(map(is_number, row))]
    used = width - (1 if all(row[-1] == "" for row in alike) and width > 3 else 0)
    values = np.array([[number(word) for word in row[:used]] for row in alike], np.float64)
    try:
        roles = guess_columns(values, intensity_first=path.name.lower().removesuffix(".gz").endswith(".pts"))
    except UnclearColumnsError as error:
        raise ScanError(
            f"{path}: has no header, and {error}; name the columns, as in --columns ,x,y,z ('' skips one)"
        ) from error
    return _Found(
        roles, {role: f"column {place + 1}, without a name" for role, place in roles.items()}, width
    )
