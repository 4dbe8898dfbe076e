"""The first pass over a scan: its box, counts and probes, what to leave out, and what looks wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.reconstruction.spacing import PROBES, Granularity, measure_granularity
from pipeline.scan_reading import ScanFacts, ScanSet, decoder, scan_chunks, scan_facts
from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk

FEWEST_POINTS = 100
ZEROS_WITHOUT_DOUBT = 10  # points exactly at the origin, amid others: a scanner never sees one spot so often
LONG_SIDE = 1000.0  # times the second longest side
APART = 100.0  # times its own size that a file may lie from the others
PLAUSIBLE_VOXELS = (5e-4, 5.0)  # meters
NARROWEST = 0.5  # standard deviation in voxels, across the longest direction, of what can be a surface

Sides = Literal["stations", "normals"] | None


@dataclass(frozen=True)
class FileSummary:
    """What the first pass learns of one file of a scan: name, number of points, box (NaN where it has none)."""

    name: str
    points: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class ScanSummary:
    """What the first pass learns of a scan.

    Attributes:
        low, high: corners of the bounding box, meters.
        points: number of usable points.
        dropped: number of points that are not finite.
        has_colors: whether all points carry colors.
        probes: (P, 3) evenly drawn points, for the spacing.
        drop_origin: points exactly at (0, 0, 0) are invalid returns, to be left out.
        sides: what tells on which side of the surface free space lies: directions to the stations, normals, or
            nothing.
        classes: number of points of each LAS class.
        stations: (S, 3) positions of the scanner that the files or the user tell.
        facts: what the files' headers say.
        crs: the coordinate reference system of the files, or None; of scans in their own frame only.
        notes: what the user should know, a line each.
        files: of each file.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    points: int
    dropped: int
    has_colors: bool
    probes: NDArray[np.float64]
    drop_origin: bool = False
    sides: Sides = None
    classes: dict[int, int] | None = None
    stations: tuple[tuple[float, float, float], ...] = ()
    crs: str | None = None
    notes: tuple[str, ...] = ()
    files: tuple[FileSummary, ...] = ()
    facts: tuple[ScanFacts, ...] = ()


def finite_chunks(scan: ScanSet, drop_origin: bool = False) -> Iterator[tuple[ScanChunk, int]]:
    """Chunks of a scan without their non-finite points, and how many of those there were.

    Args:
        drop_origin: also leave out points exactly at the origin.
    """
    for chunk in scan.chunks():
        yield _finite(chunk, drop_origin)


def _finite(chunk: ScanChunk, drop_origin: bool) -> tuple[ScanChunk, int]:
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(chunk.points).all(axis=1))
    dropped = int(len(usable) - usable.sum())
    chunk = chunk.only(usable, "not finite")
    if drop_origin:
        chunk = chunk.only(np.asarray(chunk.points.any(axis=1)), "at (0, 0, 0)")
    return chunk, dropped


class _Pass:
    """Running totals over the chunks of all files."""

    def __init__(self) -> None:
        self.total = self.zeros = self.dropped = 0
        self.left_out: Counter[str] = Counter()
        self.classes: Counter[int] = Counter()
        self.has_colors: list[bool] = []
        self.has_normals: list[bool] = []
        self.has_directions: list[bool] = []
        self.files: list[FileSummary] = []
        self.facts: list[ScanFacts] = []
        self._probes: list[NDArray[np.float64]] = []
        self._priorities: list[NDArray[np.float64]] = []
        self._rng = np.random.default_rng(0)

    def read(self, scan: ScanSet) -> None:
        """Read every file once, and what its header says."""
        with decoder() as process:
            for file in scan.files:
                self.facts.append(scan_facts(file, scan.options, process))
                self._read_file(file, scan_chunks(file, scan.options, process))

    def _read_file(self, file: Path, chunks: Iterable[ScanChunk]) -> None:
        low, high, before = np.full(3, np.inf), np.full(3, -np.inf), self.total
        for whole in chunks:
            chunk, invalid = _finite(whole, drop_origin=False)
            self.dropped += invalid
            self.left_out.update(whole.left_out)
            if not len(chunk.points):
                continue
            self.has_colors.append(chunk.colors is not None)
            self.has_normals.append(chunk.normals is not None)
            self.has_directions.append(chunk.directions is not None)
            if chunk.classes is not None:
                for number, count in zip(*np.unique(chunk.classes, return_counts=True), strict=True):
                    self.classes[int(number)] += int(count)
            points = chunk.points
            elsewhere = points.any(axis=1)
            self.zeros += int(len(points) - elsewhere.sum())
            points = points[elsewhere]
            if len(points):
                self.total += len(points)
                low, high = np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
                self._draw(points)
        self.files.append(FileSummary(str(file), self.total - before, low, high))

    def _draw(self, points: NDArray[np.float64]) -> None:
        priority = self._rng.random(len(points))
        chosen = np.argsort(priority)[:PROBES]
        self._probes.append(points[chosen])
        self._priorities.append(priority[chosen])
        if len(self._probes) > 16:
            self._probes, self._priorities = ([kept] for kept in self._lowest())

    def _lowest(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        every, priority = np.concatenate(self._probes), np.concatenate(self._priorities)
        chosen = np.argsort(priority)[:PROBES]
        return every[chosen], priority[chosen]

    @property
    def probes(self) -> NDArray[np.float64]:
        """(P, 3) evenly drawn points."""
        return self._lowest()[0] if self._probes else np.zeros((0, 3))


def summarize_scan(scan: ScanSet, drop_invalid: bool) -> ScanSummary:
    """Read a scan once: bounds, counts, a reservoir of probes, and what is to be left out.

    Raises:
        ScanError: if a file cannot be read, holds points that are not finite (and they are not to be
            dropped), too few points, no extent, or files of different reference systems are mixed.
    """
    found = _Pass()
    found.read(scan)
    name, total = scan.name, found.total + found.zeros
    if found.dropped and not drop_invalid:
        raise ScanError(
            f"{name}: {found.dropped:,} of {total + found.dropped:,} points are not finite (NaN or infinity); "
            "pass --drop-invalid to ignore them"
        )
    if total == 0:
        lost = "; ".join(f"{count:,} were {reason}" for reason, count in found.left_out.items())
        why = f"; of those in the file {lost}: see --keep-classes and --keep-withheld" if lost else ""
        raise ScanError(f"{name}: holds no points{why or '; check that the export finished'}")
    low = np.min([file.low for file in found.files], axis=0)
    high = np.max([file.high for file in found.files], axis=0)
    drop_origin = found.zeros > 0 and _are_invalid(found.zeros, low, high)
    if found.zeros and not drop_origin:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    points = total - found.zeros * drop_origin
    if points < FEWEST_POINTS:
        raise ScanError(
            f"{name}: holds {points} point{'s' * (points > 1)}; a surface needs at least {FEWEST_POINTS}"
        )
    if (high - low).max() == 0:
        raise ScanError(f"{name}: all {points:,} points lie at the same position {tuple(low.tolist())}")
    notes = [f"{count:,} points left out: {reason}" for reason, count in found.left_out.items()]
    if found.dropped:
        notes.append(f"{found.dropped:,} points left out: not finite")
    if drop_origin:
        notes.append(f"{found.zeros:,} points left out: exactly at (0, 0, 0), where nothing came back")
    if any(found.has_colors) and not all(found.has_colors):
        notes.append("colors are left out: not all files have them")
    notes += _of_place(low, high) + _of_files(found.files)
    sides: Sides = "stations" if all(found.has_directions) else "normals" if all(found.has_normals) else None
    summary = ScanSummary(
        low,
        high,
        points,
        found.dropped,
        all(found.has_colors),
        found.probes,
        drop_origin=drop_origin,
        sides=sides,
        classes=dict(sorted(found.classes.items())),
        files=tuple(found.files),
    )
    return _with_facts(summary, scan, found.facts, notes)


def _with_facts(summary: ScanSummary, scan: ScanSet, facts: list[ScanFacts], notes: list[str]) -> ScanSummary:
    """Add what the files' headers say: stations and reference system."""
    systems = {fact.crs for fact in facts if fact.crs}
    if len(systems) > 1:
        named = "; ".join(f"{file.name}: {fact.crs}" for file, fact in zip(scan.files, facts, strict=True))
        raise ScanError(
            f"{scan.name}: the files are in different coordinate reference systems ({named[:300]}); bring them to one"
        )
    units = {fact.crs_unit for fact in facts if fact.crs_unit}
    if scan.options.unit == "m" and units & {"ft", "us-ft"}:
        unit = (units & {"ft", "us-ft"}).pop()
        notes.append(f"the file's reference system is in feet; pass --unit {unit} to have it in meters")
    stations = scan.options.stations or tuple(place for fact in facts for place in fact.stations)
    return replace(
        summary,
        notes=tuple(notes),
        facts=tuple(facts),
        stations=facts[0].stations if scan.options.stations else stations,
        crs=systems.pop() if systems and scan.options.leaves_frame else None,
    )


def _are_invalid(zeros: int, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Whether points exactly at the origin are what scanners write where nothing came back."""
    if not np.isfinite(low).all():
        return False
    gap = float(np.linalg.norm(np.maximum(np.maximum(low, -high), 0.0)))
    return gap > float(np.linalg.norm(high - low)) or zeros >= ZEROS_WITHOUT_DOUBT


def _of_place(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[str]:
    sides = high - low
    order = np.argsort(sides)
    longest, second = float(sides[order[2]]), float(sides[order[1]])
    if longest > LONG_SIDE * second:
        return [
            f"its {'xyz'[order[2]]} side of {longest:,.6g} m is over a thousand times the others; "
            "check the columns, the unit and stray points (tessera info shows them)"
        ]
    return []


def _of_files(files: list[FileSummary]) -> list[str]:
    """Files that lie far from the others, or are of another size altogether: another place, or another unit."""
    filled = [file for file in files if file.points]
    notes = []
    for file in filled:
        others = [other for other in filled if other is not file]
        if not others:
            continue
        low = np.min([other.low for other in others], axis=0)
        high = np.max([other.high for other in others], axis=0)
        gap = float(np.linalg.norm(np.maximum(np.maximum(low - file.high, file.low - high), 0.0)))
        own, rest = float(np.linalg.norm(file.high - file.low)), float(np.linalg.norm(high - low))
        if gap > APART * max(min(own, rest), 1e-9) and gap > max(own, rest):
            notes.append(
                f"{file.name} lies {gap:,.6g} m from the other files; check that all are in one frame and unit"
            )
        elif own > LONG_SIDE / 2 * rest or rest > LONG_SIDE / 2 * own > 0:
            notes.append(
                f"{file.name} is {own:,.4g} m wide, the others {rest:,.4g} m; check that all are in one unit"
            )
    return notes


def scan_granularity(scan: ScanSet, summary: ScanSummary) -> Granularity:
    """How finely the scan resolves its surface, and so the default voxel size; reads the scan once more."""
    chunks = finite_chunks(scan, summary.drop_origin)
    return measure_granularity((chunk.points for chunk, _ in chunks if len(chunk.points)), summary.probes)


def check_voxel_size(scan: ScanSet, summary: ScanSummary, voxel_size: float) -> list[str]:
    """Warnings about a voxel size that no unit of meters explains.

    Raises:
        ScanError: if the points lie on a line, seen in voxels, so that there is no surface.
    """
    centered = summary.probes - summary.probes.mean(axis=0)
    spreads = np.sqrt(np.maximum(np.linalg.eigvalsh(centered.T @ centered / len(centered)), 0.0))
    if spreads[1] < NARROWEST * voxel_size:
        raise ScanError(
            f"{scan.name}: its points lie on a line (within {spreads[1]:.3g} m, at voxels of {voxel_size:.4g} m): "
            "there is no surface; check the columns (tessera info shows them) or pass a smaller --voxel-size"
        )
    low, high = PLAUSIBLE_VOXELS
    if not low <= voxel_size <= high:
        is_known = any(fact.crs_unit for fact in summary.facts)
        guess = None if is_known else guess_unit(voxel_size)
        return [
            f"a voxel of {voxel_size:.4g} m is unusual; is the file in {guess}? then pass --unit {guess}"
            if guess
            else f"a voxel of {voxel_size:.4g} m is unusual; check the unit and the columns"
        ]
    return []


def guess_unit(voxel_size: float) -> str | None:
    """The unit that would make a voxel of this many file units plausible: meters if they do; None if none does."""
    low, high = PLAUSIBLE_VOXELS
    if low <= voxel_size <= high:
        return "m"
    for unit, meters in (("mm", 0.001), ("cm", 0.01)):
        if voxel_size > high and low <= voxel_size * meters <= high:
            return unit
    return None
