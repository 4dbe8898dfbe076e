"""Calls that misbehave, for the tests of isolation; importable in another process."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocessing.dataset import DatasetLayout, ShapeSamples


def process_number() -> int:
    return os.getpid()


def add(a: int, b: int) -> int:
    return a + b


def fail(reason: str) -> None:
    raise ValueError(reason)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave(code: int) -> None:
    os._exit(code)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def count_to(last: int, ending: str = "") -> Iterator[int]:
    """1 to `last`, then fail or crash, as `ending` says."""
    yield from range(1, last + 1)
    if ending == "fail":
        fail("counted too far")
    if ending == "abort":
        abort()


def fill_memory(count: int) -> None:
    kept = []
    for _ in range(count):
        kept.append(np.ones(2**24))  # 128 MiB
        time.sleep(0.1)


@dataclass(frozen=True)
class Trouble:
    """A unit that is well (`kind` empty), crashes, hangs, fails, makes too much, or crashes the first time only."""

    name: str
    kind: str = ""
    log: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        with Path(self.log).open("a") as file:
            file.write(f"{self.name} {self.kind}\n")
        if self.kind == "segfault":
            segfault()
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "hang":
            time.sleep(1000)
        if self.kind == "memory":
            fill_memory(100)
        if self.kind == "fail":
            fail("has no inside")
        if self.kind == "once" and Path(self.log).read_text().count(self.name) == 1:
            segfault()
        rng = np.random.default_rng(len(self.name))

        def draw(count: int) -> np.ndarray:
            return rng.uniform(-0.5, 0.5, (count, 3)).astype(np.float32)

        return [
            ShapeSamples(
                points=draw(layout.points + (self.kind == "misfit")),
                normals=draw(layout.points),
                uniform_queries=draw(layout.uniform_queries),
                uniform_occupancy=rng.random(layout.uniform_queries) < 0.5,
                near_queries=draw(layout.near_queries),
                near_occupancy=rng.random(layout.near_queries) < 0.5,
                location=np.zeros(3),
                scale=1.0,
                category="thing",
                split="train",
                name=self.name,
            )
        ]
