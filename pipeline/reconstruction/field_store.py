"""A crop's sampled field in the run directory: the inside of the tile, and the shell that neighbors read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from convonet.errors import FieldError
from convonet.surface.lattice import pack, unpack
from convonet.surface.mise import MiseConfig, SampledField
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.sealed_tables import Columns
from pipeline.reconstruction.store import RunStore

INNER, SHELL, REFINED = 0, 1, 2  # row kinds; REFINED + level for refined cells


def field_file(tile: int) -> str:
    """Name of a crop's field; present, though without rows, for crops that have no points."""
    return f"fields/tile-{tile:08d}.parquet"


def check_finite(values: NDArray[np.float32], place: str) -> None:
    """Refuse a network's values that no surface can be made of.

    Raises:
        FieldError: if some are not finite.
    """
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    if wrong:
        raise FieldError(
            f"{place}: {wrong:,} of the network's {values.size:,} values are not finite; its weights do not suit this "
            "scan or are damaged: pass another --model"
        )


def write_field(
    store: RunStore, plan: ScenePlan, tile: int, field: SampledField | None, seconds: float
) -> None:
    """Write a field in two row groups: points deep inside the tile, then everything else.

    The second holds what a neighbor may ask for: its points within the blending band, and one coarse
    cell more, whose corners interpolation needs.

    Raises:
        FieldError: if values are not finite.
    """
    if field is None:
        store.write_table(field_file(tile), [_rows([])], {"is_empty": True, "seconds": seconds})
        return
    check_finite(field.values, f"tile {tile}")
    box, margin = plan.tile_box(tile), field.config.steps[0]
    points = unpack(field.keys)
    inner = ((points > np.add(box.low, margin)) & (points < np.subtract(box.high, margin))).all(axis=1)
    shell = [(SHELL, field.keys[~inner], field.values[~inner])]
    for level, refined in enumerate(field.refined):
        cells = pack(np.argwhere(refined))
        shell.append((REFINED + level, cells, np.zeros(len(cells), np.float32)))
    facts = {
        "is_empty": False,
        "box": [*field.low.tolist(), *field.high.tolist()],
        "steps": list(field.config.steps),
        "evaluated": len(field.keys),
        "seconds": seconds,
    }
    groups = [_rows([(INNER, field.keys[inner], field.values[inner])]), _rows(shell)]
    store.write_table(field_file(tile), groups, facts)


def read_field(store: RunStore, tile: int, is_whole: bool) -> SampledField | None:
    """Read a field whole or its shell only; None for crops without points.

    Raises:
        RunFileError: if it is missing or damaged.
    """
    with store.open_table(field_file(tile)) as file:
        facts = file.facts
        if facts["is_empty"]:
            return None
        table = file.read() if is_whole else file.read([1])
    kind, key = table["kind"], table["key"]
    is_point = kind < REFINED
    keys, values = key[is_point], table["value"][is_point]
    if is_whole:
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
    low, high = np.asarray(facts["box"], np.int64).reshape(2, 3)
    config = MiseConfig(tuple(facts["steps"]))
    refined = []
    for level, step in enumerate(config.steps[:-1]):
        cells = np.zeros(tuple((high - low) // step), np.bool_)
        cells[tuple(unpack(key[kind == REFINED + level]).T)] = True
        refined.append(cells)
    return SampledField(low, high, config, keys, values, refined)


def _rows(parts: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]]) -> Columns:
    return {
        "kind": np.concatenate(
            [np.zeros(0, np.int8)] + [np.full(len(keys), kind, np.int8) for kind, keys, _ in parts]
        ),
        "key": np.concatenate([np.zeros(0, np.int64)] + [keys for _, keys, _ in parts]),
        "value": np.concatenate([np.zeros(0, np.float32)] + [values for _, _, values in parts]),
    }
