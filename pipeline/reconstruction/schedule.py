"""The order of a run's work: levels, then fields, then surfaces, each over the tiles that miss their file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pipeline.interruption import check_interrupted
from pipeline.reconstruction.coarse_field import is_believable, read_level_facts
from pipeline.reconstruction.field_store import field_file
from pipeline.reconstruction.ingest import occupied_tiles
from pipeline.reconstruction.manifest import RunManifest, TileCounts, write_manifest
from pipeline.reconstruction.merge import finished_tiles
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.stages import (
    SurfaceRequest,
    TileJob,
    level_tile,
    sample_tile,
    surface_tile,
)

# What all tiles share, and a tile, to whether that was finished already.
Work = Callable[[TileJob, Any], bool]
# Work, what all tiles share, the tiles, and a title for people, to the answers of the tiles.
RunTasks = Callable[[Work, TileJob, Sequence[Any], str], Iterable[bool]]


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall time of a block to `seconds[stage]`."""
    check_interrupted()
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - started, 3)


def is_complete(manifest: RunManifest, job: TileJob) -> bool:
    """Whether every surface of the run is there."""
    wanted = manifest.surface_tiles
    return wanted is not None and set(wanted) <= set(finished_tiles(job.store))


@dataclass
class Schedule:
    """Runs the tasks of one command.

    Attributes:
        job: what they share.
        manifest: of the run.
        seconds: gets the wall time of each stage.
        run_tasks: in this process or on Ray.
    """

    job: TileJob
    manifest: RunManifest
    seconds: dict[str, float]
    run_tasks: RunTasks

    def run(self) -> RunManifest:
        """Compute what is missing and note it in the manifest.

        Raises:
            RunFileError: if a file that a task reads is missing or damaged.
            ClusterError: if workers kept dying.
        """
        job, plan = self.job, self.job.plan
        with timed(self.seconds, "levels"):
            solid = self._levels()
        job = self.job
        candidates = set(_reached(plan, [*occupied_tiles(job.store).tolist(), *solid]))
        done = set(finished_tiles(job.store))
        known = self.manifest.surface_tiles
        reach = {near for tile in candidates for near in plan.around(tile)} if known is None else set(known)
        needed = {near for tile in reach - done for near in plan.around(tile)} & candidates
        with timed(self.seconds, "fields"):
            fields_computed, fields_kept = self._each(sample_tile, sorted(needed), "fields")
        encoded = [tile for tile in needed if not job.store.read_facts(field_file(tile))["is_empty"]]
        if known is None:
            known = tuple(sorted({near for tile in encoded for near in plan.around(tile)} | done))
        requests = [
            SurfaceRequest(tile, tuple(near for near in plan.around(tile) if near in candidates))
            for tile in known
        ]
        with timed(self.seconds, "surfaces"):
            tiles_computed, tiles_kept = self._each(surface_tile, requests, "surfaces")
        counts = TileCounts(fields_computed, fields_kept, tiles_computed, tiles_kept)
        manifest = replace(self.manifest, surface_tiles=known, runs=(*self.manifest.runs, counts))
        write_manifest(job.store, manifest)
        return manifest

    def _levels(self) -> list[int]:
        """Compute the coarser levels, coarsest first; returns the finest level's tiles that they find solid."""
        below: list[int] = []
        for level in range(len(self.job.plans) - 1, 0, -1):
            plan = self.job.plans[level]
            tiles = _reached(plan, [*occupied_tiles(self.job.store, level).tolist(), *below])
            self._each(level_tile, [(level, tile) for tile in tiles], f"level {level}")
            facts = [read_level_facts(self.job.store, level, tile) for tile in tiles]
            below = sorted({tile for fact in facts for tile in fact.below})
            self.job = replace(self.job, level_tiles={**self.job.level_tiles, level: frozenset(tiles)})
            # Sides are handed down from the coarsest level on, as far as every level agrees with the scan.
            are_coarser = len(self.job.believable_levels) == len(self.job.plans) - 1 - level
            if are_coarser and is_believable(facts):
                self.job = replace(self.job, believable_levels=self.job.believable_levels | {level})
        return below

    def _each(self, work: Work, items: Sequence[Any], title: str) -> tuple[int, int]:
        """Run one task for each item; returns how many computed theirs and how many found it finished."""
        kept = sum(self.run_tasks(work, self.job, items, title))
        return len(items) - kept, kept


def _reached(plan: ScenePlan, tiles: Sequence[int]) -> list[int]:
    """All tiles whose crops cover any of these, ascending."""
    return sorted({near for tile in tiles for near in plan.under_crop(tile)})
