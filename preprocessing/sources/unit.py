"""What a source of shapes is: a list of units of work, each of which makes one or several shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from preprocessing.dataset import DatasetLayout, ShapeSamples


class Unit(Protocol):
    """Makes shapes in a process of its own; small enough to be sent there."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the shapes it makes, in order."""
        ...

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Make the shapes; what it raises becomes the reason why they are rejected."""
        ...


@dataclass(frozen=True)
class NamedUnit:
    """A unit that makes one shape of a file or folder.

    Attributes:
        path: the file or folder.
        name, category, split: as the store keeps them.
    """

    path: str
    name: str
    category: str
    split: str

    @property
    def names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)


def fingerprint(facts: Sequence[Any]) -> dict[str, Any]:
    """What tells one collection from another: the number of its shapes, and the hash of facts of each."""
    return {"count": len(facts), "sha256": hashlib.sha256(json.dumps(facts).encode()).hexdigest()}


@dataclass(frozen=True)
class Collection:
    """Everything that one dataset is made of.

    Attributes:
        units: in the order of the dataset's shapes; a unit lies within one shard.
        layout: the dataset's.
        provenance: JSON of what was asked for; a store made with another is refused.
    """

    units: tuple[Unit, ...]
    layout: DatasetLayout
    provenance: dict[str, Any]

    def shards(self) -> list[tuple[Unit, ...]]:
        """The units of each shard."""
        shards: list[list[Unit]] = [[] for _ in range(self.layout.shards)]
        shape = 0
        for unit in self.units:
            first, last = shape, shape + len(unit.names) - 1
            shard = first // self.layout.shapes_per_shard
            assert last // self.layout.shapes_per_shard == shard, "a unit crosses the border of a shard"
            shards[shard].append(unit)
            shape = last + 1
        assert shape == self.layout.shapes, "the units make another number of shapes than the layout holds"
        return [tuple(shard) for shard in shards]
