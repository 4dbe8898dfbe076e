"""Whether the tests notice faults made by hand: one line changed at a time, in a copy of the code.

    python -m benchmarks.handmade_faults [--only mise] [--output handmade_faults.json]

Each fault is a slip that somebody could make: a sign, a bound, a half, a forgotten neighbor. The tests named for it
run on a copy in which it is made; a fault is caught if they fail. Prints JSON: how many were caught, and which were
not. Exits with 1 if fewer than nine in ten were, or if the code has moved away from under a fault.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import machine, tell

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "foundation",
    "convonet",
    "preprocessing",
    "pipeline",
    "jobs",
    "tests",
    "benchmarks",
    "pyproject.toml",
)
TIMEOUT_S = 600.0
SHARE_CAUGHT = 0.9
RECONSTRUCTION = "tests/pipeline/reconstruction"


@dataclass(frozen=True)
class Subject:
    """A file and the tests that answer for it.

    Attributes:
        file: of the product.
        tests: what pytest is given.
        faults: pairs of a text that occurs once in the file, and what takes its place.
    """

    file: str
    tests: tuple[str, ...]
    faults: tuple[tuple[str, str], ...]


SUBJECTS = (
    Subject(
        "convonet/surface/mise.py",
        ("tests/convonet/surface/test_mise.py",),
        (
            ("wanted = _corners_disagree(inside) | below", "wanted = below"),
            ("beside[:, axis] += 1 if side else -1", "beside[:, axis] += 1"),
            ("for upper in self.levels[: depth + 1]:", "for upper in self.levels[depth : depth + 1]:"),
            ("owners = np.minimum(points, self.high - 1) - self.low", "owners = points - self.low - 1"),
            ("np.where(corner, fraction, 1 - fraction)", "np.where(corner, 1 - fraction, fraction)"),
            ("return any_inside & ~all_inside", "return any_inside"),
            ("level.mark((seeds - self.low) // level.step)", "level.mark(seeds[:0])"),
        ),
    ),
    Subject(
        "convonet/surface/marching_cubes.py",
        ("tests/convonet/surface/test_marching_cubes.py",),
        (
            ("np.clip(low / (low - high)", "np.clip(high / (high - low)"),
            ("np.greater(flat, 0,", "np.greater_equal(flat, 0,"),
            ("MIN_FRACTION, 1 - MIN_FRACTION)", "0.0, 1.0)"),
            ("starts_cell[:-1, :-1, :-1] = True", "starts_cell[:-1, :-1, :] = True"),
        ),
    ),
    Subject(
        "pipeline/reconstruction/blending.py",
        (f"{RECONSTRUCTION}/test_seams.py",),
        (
            ("t * t * (3.0 - 2.0 * t)", "t * t"),
            ("(1.0 - axis_ramp(coordinates, (place + 1)", "(axis_ramp(coordinates, (place + 1)"),
            ("if place < plan.grid[axis] - 1:", "if place < plan.grid[axis]:"),
            ("(points <= 0) | (points >= limits)", "(points < 0) | (points > limits)"),
            ("(face - band)) / (2.0 * band)", "(face - band)) / (1.0 * band)"),
        ),
    ),
    Subject(
        "pipeline/reconstruction/tile_surface.py",
        (f"{RECONSTRUCTION}/test_seams.py",),
        (
            ("active = refined | (inside & free)", "active = refined"),
            ("places = np.maximum(lowest, 0) //", "places = np.maximum(lowest - 1, 0) //"),
            ("normals = np.cross(b - a, c - a)", "normals = np.cross(c - a, b - a)"),
            ("np.moveaxis(free, axis, 0)[-1] = True", "np.moveaxis(free, axis, 0)[0] = True"),
            ("(counts == 2) & (forward != 1)", "(counts == 2) & (forward == 1)"),
        ),
    ),
    Subject(
        "pipeline/reconstruction/merge.py",
        (f"{RECONSTRUCTION}/test_merge.py",),
        (
            ("rows.normal_sums[place[hit]] += shared.normal_sums[hit]", "pass"),
            ("shown[place[hit]] = True", "pass"),
            ("pair = pair[edges[pair, 0] == edges[pair + 1, 1]]", "pair = pair[edges[pair, 0] == edges[pair + 1, 0]]"),
            ("kept = kept & observed[faces].all(axis=1)", "kept = kept & observed[faces].any(axis=1)"),
            ("observed_area * square", "observed_area * plan.voxel_size"),
            ("is_open = codes[first] & 1 == codes[last] & 1", "is_open = codes[first] & 1 != codes[last] & 1"),
        ),
    ),
    Subject(
        "pipeline/reconstruction/parts.py",
        (f"{RECONSTRUCTION}/test_merge.py", f"{RECONSTRUCTION}/test_observed.py"),
        (
            ("kept[np.argmax(voxels)] = True", "pass"),
            ("kept = voxels >= fewest_voxels", "kept = voxels > fewest_voxels + 8"),
            ("own = np.flatnonzero(observed[: surface.owned])", "own = np.flatnonzero(observed)"),
            ("np.cross(b - a, c - a), axis=1) / 2", "np.cross(b - a, c - a), axis=1)"),
        ),
    ),
    Subject(
        "pipeline/reconstruction/scan_fit.py",
        (f"{RECONSTRUCTION}/test_scan_fit.py",),
        (
            ("- (differs / np.float32(AGREEMENT_VOXELS)) ** 2", "- 0 * differs"),
            ("flat[index + stride] - flat[index - stride]", "flat[index + stride] - flat[index]"),
            ("share = share * _smooth((np.float32(FAR_VOXELS)", "share = share + 0 * _smooth((np.float32(FAR_VOXELS)"),
            ("/ counts[:, None]", "/ np.maximum(counts[:, None] - 1, 1)"),
            ("for step in range(1, reach + 2):", "for step in range(1, reach + 1):"),
        ),
    ),
    Subject(
        "preprocessing/occupancy_labels.py",
        ("tests/preprocessing/test_occupancy_labels.py", "tests/preprocessing/test_label_references.py"),
        (
            ("return np.where(occupied, -away, away)", "return np.where(occupied, away, -away)"),
            ("return votes >= 2", "return votes >= 1"),
            ("@ direction > 0, 1, -1)", "@ direction > 0, 1, 0)"),
            ("self._normals = -self._normals", "pass"),
            ("if np.array_equal(solid.occupancy(queries[sample]), inside[sample]):", "if True:"),
        ),
    ),
    Subject(
        "preprocessing/batches/seen_labels.py",
        ("tests/preprocessing/analytic/test_crops.py", "tests/preprocessing/test_dataset.py"),
        (
            ("return np.where(near, distances, free), is_certain", "return distances, is_certain"),
            ("moved[:-1] |= source[1:]", "pass"),
            ("near = _grown(seen, round(SHEET_VOXELS))", "near = _grown(seen, 1)"),
        ),
    ),
    Subject(
        "preprocessing/surface_sampling.py",
        ("tests/preprocessing/test_surface_sampling.py",),
        (
            ("root, along = np.sqrt(rng.random(count))", "root, along = rng.random(count)"),
            ("root * (1 - along), root * along", "root * along, root * along"),
            ("cumulative = np.cumsum(doubled)", "cumulative = np.cumsum(doubled**0.5)"),
        ),
    ),
    Subject(
        "preprocessing/batches/training_crops.py",
        ("tests/preprocessing/test_dataset.py",),
        (
            ("stored_away[chosen].astype(np.float32) * np.float32(scale)", "stored_away[chosen].astype(np.float32)"),
            ("directions = (units @ rotation.T)", "directions = (units @ rotation)"),
            ("margin = 0.0 if is_whole else config.context", "margin = 0.0"),
            ("turn[0] *= -1", "pass"),
            ("np.random.default_rng([self.seed, step, rank])", "np.random.default_rng([self.seed, step])"),
        ),
    ),
    Subject(
        "convonet/layers/sampling.py",
        ("tests/convonet/layers/test_sampling.py",),
        (
            ("(queries.T - 0.5).clamp_min(0)", "queries.T.clamp_min(0)"),
            ("sides_of[z][2] * sides_of[y][1] * sides_of[x][0]", "sides_of[z][0] * sides_of[y][1] * sides_of[x][2]"),
        ),
    ),
    Subject(
        "preprocessing/metrics.py",
        ("tests/preprocessing/test_metrics.py", "tests/preprocessing/test_label_references.py"),
        (
            ("2 * precision * recall / total", "precision * recall / total"),
            ("precision, recall = float((to_truth", "recall, precision = float((to_truth"),
            ("chamfer_l1=0.5 * (accuracy + completeness)", "chamfer_l1=accuracy + completeness"),
            ("float(np.abs(cosines).mean())", "float(np.abs(cosines.mean()))"),
            ("union = int((predicted | exact).sum())", "union = int(exact.sum())"),
            ("pad = IOU_PADDING * (high - low)", "pad = -IOU_PADDING * (high - low)"),
            ("kept.append((points[visible], normals[visible]))", "kept.append((points, normals))"),
        ),
    ),
)  # fmt: skip


def is_caught(place: Path, subject: Subject, old: str, new: str) -> bool:
    """Whether the tests fail once a fault is made in the copy at `place`; the copy is whole again afterwards."""
    file = place / subject.file
    text = file.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{subject.file}: {old!r} occurs {text.count(old)} times; name the fault anew")
    file.write_text(text.replace(old, new))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *subject.tests]
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{subject.tests}: pytest ended with {done.returncode}: {done.stdout[-2000:]!r}")
        return done.returncode == 1
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_text(text)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    missed: list[dict[str, str]] = []
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, place / name)
        for subject in SUBJECTS:
            if given.only not in subject.file:
                continue
            for old, new in subject.faults:
                count += 1
                caught = is_caught(place, subject, old, new)
                print(
                    f"{'caught' if caught else 'MISSED'}  {subject.file}: {old}", file=sys.stderr, flush=True
                )
                if not caught:
                    missed.append({"file": subject.file, "line": old, "fault": new})
    tell(
        {"machine": machine(), "faults": count, "caught": count - len(missed), "missed": missed}, given.output
    )
    sys.exit(0 if count - len(missed) >= SHARE_CAUGHT * count else 1)


if __name__ == "__main__":
    main()
