"""Faults at random moments of real commands: every end is the undisturbed result or a short error that a rerun heals.

    python -m benchmarks.faults --reconstruct 300 --preprocess 100 --train 50

Each command runs as a process of its own. Up to three faults are drawn for each start of it: files are damaged before,
processes killed or held up, a second command started, the disk filled or remounted read-only. The command is then
started again until it ends well, and its result compared. Prints JSON; exits with 1 if anything wrong was believed,
a command hung, or an error was long, silent or did not heal. Needs root for the disk's faults (a small tmpfs), which
are left out without it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import trimesh
from safetensors.numpy import load_file

from benchmarks.machine import machine
from preprocessing.scan_files import write_scan_ply

TESSERA = [sys.executable, "-m", "pipeline.cli"]
ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 3  # of an error
MOST_FAILURES = 2  # in a row, of a command that nothing disturbs
SHARE_DAMAGED = 0.7  # of the starts, that find a damaged file
FAULTS_AT_WORK = 2  # drawn for each start; the second may come too late
TIMEOUT_S = 600.0
DISK_MIB = 1500  # a training with its checkpoints and those of its retries


@dataclass(frozen=True)
class Case:
    """A command under test.

    Attributes:
        name: for the log.
        arguments: of `tessera`.
        out: that folder.
        result: what must be the same after any faults, as text.
        files: pattern of the files that may be damaged between two starts.
    """

    name: str
    arguments: tuple[str, ...]
    out: Path
    result: Callable[[], str]
    files: str

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """The command, in a session of its own, without progress bars."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"PYTHONPATH": str(ROOT)}
        with log.open("wb") as errors:
            return subprocess.Popen(
                [*TESSERA, *self.arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )


@dataclass
class Tally:
    """What came of a case's faults."""

    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    believed: list[str] = field(default_factory=list)
    unhealed: list[str] = field(default_factory=list)
    long_errors: list[str] = field(default_factory=list)
    silent_errors: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.believed or self.unhealed or self.long_errors or self.silent_errors or self.hangs)


# Does its harm to a command at work, and tells whether there was anything to harm.
Fault = Callable[[Case, Any, random.Random], bool]


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A command's processes, itself first."""
    with suppress(psutil.Error):
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    return []


def _named(process: subprocess.Popen[bytes], pattern: str) -> list[psutil.Process]:
    found = []
    for member in family(process)[1:]:
        with suppress(psutil.Error):
            if re.search(pattern, " ".join(member.cmdline()) or member.name()):
                found.append(member)
    return found


def _signal_driver(number: signal.Signals) -> Fault:
    def fault(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
        if process.poll() is not None:
            return False
        os.kill(process.pid, number)
        return True

    return fault


def _kill_named(pattern: str) -> Fault:
    def fault(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
        with suppress(psutil.Error):
            if found := _named(process, pattern):
                draw.choice(found).kill()
                return True
        return False

    return fault


def hold_up(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Stop a worker for some seconds."""
    with suppress(psutil.Error):
        if found := _named(process, r"ray::|default_worker"):
            held = draw.choice(found)
            held.suspend()
            time.sleep(draw.uniform(0.5, 8))
            held.resume()
            return True
    return False


def second_command(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Start the same command beside the first."""
    was_running = process.poll() is None
    _wait(case.start(case.out.parent / "second.log"))
    return was_running


def step_clock(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Move the times that a lease is judged by, as a stepping clock of the file system would."""
    then = time.time() + draw.choice([-7200, -60, 60, 7200])
    with suppress(OSError):
        os.utime(case.out / ".lease.json", (then, then))
        return True
    return False


def fill_disk(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Fill the disk until the command has ended."""
    was_running = process.poll() is None
    filler = case.out.parent / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"\0" * (1 << 20))
    _wait(process)
    filler.unlink(missing_ok=True)
    return was_running


def mount_read_only(case: Case, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Remount the disk read-only until the command has ended, if it lets itself."""
    command = ["mount", "-o", "remount,ro", str(case.out.parent)]
    while subprocess.run(command, capture_output=True, check=False).returncode:  # files are open for writing
        if process.poll() is not None:
            return False
    _wait(process)
    subprocess.run(["mount", "-o", "remount,rw", str(case.out.parent)], check=True)
    return True


def _wait(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(TIMEOUT_S)


PROCESS_FAULTS: dict[str, Fault] = {
    "kill -9 driver": _signal_driver(signal.SIGKILL),
    "kill -15 driver": _signal_driver(signal.SIGTERM),
    "kill -2 driver": _signal_driver(signal.SIGINT),
    "kill -9 worker": _kill_named(r"ray::|default_worker"),
    "kill -9 raylet": _kill_named(r"raylet/raylet|/raylet "),
    "kill -9 GCS": _kill_named(r"gcs_server"),
    "hold up a worker": hold_up,
    "second command": second_command,
    "clock step": step_clock,
}
DISK_FAULTS: dict[str, Fault] = {"full disk": fill_disk, "read-only remount": mount_read_only}


def damage(kind: str) -> Fault:
    """Harm a file of a run between two starts."""

    def fault(case: Case, process: subprocess.Popen[bytes] | None, draw: random.Random) -> bool:
        files = sorted(path for path in case.out.glob(case.files) if path.is_file() and path.stat().st_size)
        if len(files) < 2:
            return False
        path, other = draw.sample(files, 2)
        data = bytearray(path.read_bytes())
        if kind == "flip a bit":
            place = draw.randrange(8 * len(data))
            data[place // 8] ^= 1 << place % 8
            path.write_bytes(data)
        elif kind == "truncate":
            path.write_bytes(data[: draw.randrange(len(data))])
        elif kind == "delete":
            path.unlink()
        else:
            path.write_bytes(other.read_bytes())
            other.write_bytes(data)
        return True

    return fault


FILE_FAULTS = {kind: damage(kind) for kind in ("flip a bit", "truncate", "delete", "swap two")}


def inject(case: Case, count: int, draw: random.Random, has_disk: bool) -> Tally:
    """Draw faults until `count` of them were injected and the command has ended well."""
    tally = Tally()
    log = Path(tempfile.mkdtemp()) / "stderr"
    started = time.monotonic()
    code = _finish(case, case.start(log), tally, "undisturbed")
    duration = time.monotonic() - started
    if code != 0:
        raise SystemExit(f"{case.name}: the undisturbed command failed: {log.read_text()[-2000:]}")
    expected = case.result()
    at_work = PROCESS_FAULTS | (DISK_FAULTS if has_disk else {})
    undisturbed_failures = 0
    while (done := sum(tally.faults.values())) < count or code != 0:
        suffered: list[str] = []
        kind = draw.choice(list(FILE_FAULTS))
        if done < count and draw.random() < SHARE_DAMAGED and FILE_FAULTS[kind](case, None, draw):
            suffered.append(kind)
        elif code == 0:
            shutil.rmtree(case.out, ignore_errors=True)
        process = case.start(log)
        damaged = len(suffered)
        for kind in draw.choices(list(at_work), k=FAULTS_AT_WORK if done < count else 0):
            time.sleep(draw.uniform(0.05, 0.9) * duration / FAULTS_AT_WORK)
            if at_work[kind](case, process, draw):
                suffered.append(kind)
        is_harmed_at_work = len(suffered) > damaged
        tally.faults.update(suffered)
        kind = ", ".join(suffered) or "none"
        code = _finish(case, process, tally, kind)
        tally.exits[str(code)] += 1
        lines = [line for line in log.read_text(errors="replace").splitlines() if _is_error(line)]
        told = f"{kind}: exit {code}, {len(lines)} lines: {' | '.join(lines)[-800:]}"
        if code not in (0, -9) and len(lines) > MOST_LINES:
            tally.long_errors.append(told)
        if code not in (0, -9) and not lines:
            tally.silent_errors.append(told)
        if code == 0 and case.result() != expected:
            tally.believed.append(kind)
            shutil.rmtree(case.out)
        undisturbed_failures = 0 if code == 0 or is_harmed_at_work else undisturbed_failures + 1
        if undisturbed_failures > MOST_FAILURES:
            tally.unhealed.append(told)
            shutil.rmtree(case.out, ignore_errors=True)
        print(f"{case.name}: {done} of {count}, {told}", file=sys.stderr, flush=True)
    return tally


def _finish(case: Case, process: subprocess.Popen[bytes], tally: Tally, what: str) -> int:
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        tally.hangs.append(what)
        return -9
    finally:
        for member in family(process):
            with suppress(psutil.Error):
                member.kill()
        process.wait()


def _is_error(line: str) -> bool:
    return bool(line.strip()) and not re.match(
        r"(preprocess|train|fields|surfaces|level \d+|points|scan)\b.*:", line
    )


def _mesh_bytes(out: Path) -> str:
    return hashlib.sha256((out / "mesh.ply").read_bytes()).hexdigest()


def _arrays(out: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(out.glob("*/c/**/*")):
        if path.is_file():
            digest.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return digest.hexdigest()


def _tensors(out: Path) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(load_file(out / "model.safetensors").items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def reconstruct_case(folder: Path, disk: Path) -> Case:
    """A room-like scene of several tiles and levels."""
    rng = np.random.default_rng(3)
    floor = np.column_stack([rng.uniform(0, 6, (4000, 2)), np.zeros(4000)])
    wall = np.column_stack([rng.uniform(0, 6, 2500), np.zeros(2500), rng.uniform(0, 3, 2500)])
    ball = rng.normal(size=(1500, 3))
    ball = [3, 3, 1.2] + 0.8 * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    write_scan_ply(folder / "scene.ply", np.concatenate([floor, wall, ball]))
    out = disk / "run"
    arguments = ("reconstruct", str(folder / "scene.ply"), "--voxel-size", "0.2", "--query-voxels", "24")
    return Case("reconstruct", (*arguments, "--out", str(out)), out, lambda: _mesh_bytes(out), "**/*")


def make_balls(folder: Path, count: int) -> Path:
    """A folder of small meshes."""
    balls = folder / "balls"
    balls.mkdir()
    for number in range(count):
        trimesh.creation.icosphere(subdivisions=1, radius=1 + number).export(balls / f"{number}.off")
    return balls


def preprocess_case(folder: Path, disk: Path) -> Case:
    """Meshes in two shards."""
    out = disk / "balls.zarr"
    arguments = ("preprocess", "meshes", str(make_balls(folder, 9)), "--out", str(out))
    return Case("preprocess", arguments, out, lambda: _arrays(out), "*/c/**/*")


def train_case(folder: Path, disk: Path) -> Case:
    """Some steps of a network of the papers, with checkpoints."""
    source = folder / "train"
    source.mkdir()
    data, out = folder / "train.zarr", disk / "fit"
    made = [*TESSERA, "preprocess", "meshes", str(make_balls(source, 24)), "--out", str(data)]
    subprocess.run(made, cwd=ROOT, check=True, capture_output=True)
    arguments = ["train", str(data), "--preset", "onet_pointcloud", "--steps", "6", "--batch-size", "2"]
    arguments += ["--checkpoint-every", "2", "--device", "cpu", "--out", str(out)]
    return Case("train", tuple(arguments), out, lambda: _tensors(out), "ray/**/*")


def mounted(folder: Path) -> bool:
    """Mount a small disk at a folder; False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    return os.name == "posix" and subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("reconstruct", "preprocess", "train"):
        parser.add_argument(f"--{name}", type=int, default=0, help="number of faults")
    parser.add_argument("--seed", type=int, default=None, help="of the draw; a new one by default")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}", file=sys.stderr)
    # In the background it is ignored, and would be by the commands that are started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    disk = folder / "disk"
    has_disk = mounted(disk)
    tallies: dict[str, Tally] = {}
    try:
        cases = {
            "reconstruct": lambda: reconstruct_case(folder, disk),
            "preprocess": lambda: preprocess_case(folder, disk),
            "train": lambda: train_case(folder, disk),
        }
        for name, make in cases.items():
            if count := getattr(given, name):
                tallies[name] = inject(make(), count, random.Random(f"{seed} {name}"), has_disk)
    finally:
        if has_disk:
            subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    found = {name: vars(tally) for name, tally in tallies.items()}
    print(json.dumps({"machine": machine(), "seed": seed, "has_disk": has_disk, "cases": found}, indent=1))
    sys.exit(0 if all(tally.is_clean for tally in tallies.values()) else 1)


if __name__ == "__main__":
    main()
