"""Which column is what, where nothing names them: told by the values, and only as far as they leave no doubt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES

DARKEST_COLORS = 15  # three columns of whole numbers up to this are counts or labels (LAS returns, classes)
MOST_LABELS = 64
WIDEST = 16  # columns; wider tables are features of points, among which any three may look like colors
UNIX_TIME = (1e9, 1e19)  # seconds to nanoseconds since 1970


class UnclearColumnsError(Exception):
    """The first three columns cannot be told to be x, y and z; the message says why."""


def guess_columns(values: NDArray[np.float64], intensity_first: bool = False) -> dict[str, int]:
    """Roles of the columns of a table without names: x, y, z first, then perhaps colors and normals.

    Args:
        values: (N, C) rows from the file, C at least 3.
        intensity_first: a fourth column that could be red as well is an intensity (PTS).

    Raises:
        UnclearColumnsError: if the first column counts the rows or holds times, or the table is a path of poses.
    """
    count = values.shape[1]
    with np.errstate(invalid="ignore"):
        finite = values[np.isfinite(values).all(axis=1)]
        if count > 3 and len(finite) >= 3:
            _refuse_other_first_columns(finite)
        roles = dict(zip(AXES, range(3), strict=True))
        if not len(finite) or not 6 <= count <= WIDEST:
            return roles
        start = 4 if _has_one_before(finite, intensity_first) else 3
        while start + 3 <= count:
            part = finite[:, start : start + 3]
            if NORMAL_NAMES[0] not in roles and _are_normals(part):
                roles |= {name: start + number for number, name in enumerate(NORMAL_NAMES)}
            elif COLOR_NAMES[0] not in roles and (
                _are_bytes(part)
                or ((_are_fractions(part) or _are_words(part)) and _may_be_last(finite, start))
            ):
                roles |= {name: start + number for number, name in enumerate(COLOR_NAMES)}
            elif start == 3:
                start = 4  # one column, such as an intensity, may stand between
                continue
            else:
                break
            start += 3
    return roles


def _refuse_other_first_columns(values: NDArray[np.float64]) -> None:
    first, rest = values[:, 0], values[:, 1:]
    steps = np.diff(first)
    if (
        len(first) >= 5
        and (steps == 1).all()
        and (first == np.floor(first)).all()
        and not _whole(rest[:, :3])
    ):
        raise UnclearColumnsError("the first column counts the rows")
    _refuse_whole_first_columns(values)
    if (steps > 0).all() and UNIX_TIME[0] < first[0] and first[-1] < UNIX_TIME[1]:
        raise UnclearColumnsError("the first column holds times")
    if values.shape[1] == 8:
        lengths = np.linalg.norm(values[:, 4:], axis=1)
        if (np.abs(lengths - 1) < 0.01).all() and (steps > 0).all():
            raise UnclearColumnsError("the rows are poses (time, position, quaternion), not points")


def _refuse_whole_first_columns(values: NDArray[np.float64]) -> None:
    """Rows and columns of a scanner's grid, or an id or class, ahead of coordinates with fractions."""
    behind = values[:, 3:6]
    if behind.shape[1] == 3 and (_are_normals(behind) or _are_fractions(behind)):
        return
    is_whole = [_whole(column) for column in values.T]
    changes = [bool((column != column[0]).any()) for column in values.T]
    if len(is_whole) >= 5 and is_whole[:5] == [True, True, False, False, False] and all(changes[:2]):
        raise UnclearColumnsError("the first two columns are whole numbers, as rows and columns of a grid")
    if is_whole[:4] == [True, False, False, False] and changes[0]:
        raise UnclearColumnsError("the first column holds whole numbers, unlike the next three")


def _whole(part: NDArray[np.float64]) -> bool:
    return bool((part == np.floor(part)).all())


def _are_normals(part: NDArray[np.float64]) -> bool:
    return bool((np.abs(np.linalg.norm(part, axis=1) - 1) < 0.02).all())


def _are_bytes(part: NDArray[np.float64]) -> bool:
    return _whole(part) and part.min() >= 0 and DARKEST_COLORS < part.max() <= 255


def _are_words(part: NDArray[np.float64]) -> bool:
    """Whether three columns may be colors of 16 bits: alike in range, and neither ids nor times, which grow."""
    largest = part.max(axis=0)
    return (
        _whole(part)
        and part.min() >= 0
        and largest.min() > 255
        and largest.max() <= 65_535
        and largest.max() <= 8 * largest.min()
        and not bool((np.diff(part, axis=0) >= 0).all(axis=0).any())
    )


def _are_fractions(part: NDArray[np.float64]) -> bool:
    return bool(part.min() >= 0 and part.max() <= 1 and part.any() and not (part == part[0, 0]).all())


def _may_be_last(values: NDArray[np.float64], start: int) -> bool:
    """Colors that are no bytes stand last, or before one column that is a label or an alpha."""
    left = values.shape[1] - start - 3
    return left == 0 or (
        left == 1 and (_whole(values[:, -1:]) or bool((values[:, -1] == values[0, -1]).all()))
    )


def _has_one_before(values: NDArray[np.float64], intensity_first: bool) -> bool:
    """Whether of seven columns the fourth stands before the colors (an intensity), not the last behind them."""
    if values.shape[1] != 7:
        return False
    early, late, last = values[:, 3:6], values[:, 4:7], values[:, 6]
    if _are_bytes(late) or _are_words(late):
        if not (_are_bytes(early) or _are_words(early)):
            return True
        is_alpha = bool((last == last[0]).all()) and len(last) > 1 and last[0] in (0, 255, 65_535)
        is_label = last.max() < MOST_LABELS and early.max() >= MOST_LABELS
        return intensity_first or not (is_alpha or is_label)
    return intensity_first and _are_fractions(late)
