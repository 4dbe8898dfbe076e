"""A signal ends a command in one line, with its exit code, and with all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline.interruption import Interruption, check_interrupted
from preprocessing.scan_files import write_scan_ply
from tests.pipeline.commands_at_work import ROOT, Command, alive
from tests.preprocessing.ball_datasets import BALLS, write_balls

AGAIN = "run the same command again to continue"
ENDS = [
    (signal.SIGINT, 130, f"tessera: interrupted; {AGAIN}"),
    (signal.SIGTERM, 143, f"tessera: ended by SIGTERM; {AGAIN}"),
]
TASK = {
    "reconstruct": "ray::_on_assigned",
    "preprocess": "ray::prepare_shard",
    "train": "ray::RayTrainWorker",
}

pytestmark = pytest.mark.cluster


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's temporary files lie here alone; sockets want a short path."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def arguments_of(name: str, folder: Path, scene_points: np.ndarray) -> list[object]:
    if name == "reconstruct":
        write_scan_ply(folder / "scene.ply", scene_points[:12_000])
        small = ["--voxel-size", "0.125", "--query-voxels", "24"]
        return ["reconstruct", folder / "scene.ply", "--out", folder / "run", *small]
    if name == "preprocess":
        many = ["--rooms", "64", "--building-windows", "0"]
        return ["preprocess", "rooms", "--out", folder / "rooms.zarr", *many]
    data = write_balls(folder / "balls.zarr", BALLS)
    small = ["--preset", "shapenet_1plane", "--device", "cpu", "--steps", "500", "--batch-size", "2"]
    return ["train", data, "--out", folder / "run", "--checkpoint-every", "2", *small]


@pytest.mark.parametrize(
    ("name", "end"), [("reconstruct", 0), ("reconstruct", 1), ("preprocess", 1), ("train", 0), ("train", 1)]
)
def test_a_signal_ends_a_command_at_work_with_all_that_it_started(
    name: str, end: int, tmp_path: Path, temporary: Path, scene_points: np.ndarray
) -> None:
    number, code, line = ENDS[end]
    command = Command(*arguments_of(name, tmp_path, scene_points))
    command.wait_for_process(TASK[name])
    family = command.family()
    command.process.send_signal(number)
    assert command.end(60) == code
    assert command.errors == [line]
    assert command.stdout == []
    assert alive(family) == []
    assert list(temporary.iterdir()) == [], "Ray's files are still there"


def wait_until_it_listens(command: Command) -> None:
    """Until the interpreter has come to where signals are caught."""
    status = Path(f"/proc/{command.process.pid}/status")
    while True:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("seconds", [0.1, 3.0, 5.0])
def test_a_signal_while_a_command_starts_is_one_line_too(
    seconds: float, tmp_path: Path, scene_points: np.ndarray, temporary: Path
) -> None:
    command = Command(*arguments_of("reconstruct", tmp_path, scene_points))
    wait_until_it_listens(command)
    time.sleep(seconds)
    family = command.family()
    command.process.terminate()
    assert command.end(60) == 143
    assert command.errors == [ENDS[1][2]]
    assert alive(family) == []


def assert_ended_by_sigterm(program: str, folder: Path, *arguments: object) -> None:
    (folder / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", "program", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == [ENDS[1][2]]
    assert done.returncode == 143


def test_a_signal_in_a_piece_of_text_that_is_executed_has_the_same_exit_code(tmp_path: Path) -> None:
    """As when dataclasses are being imported: Python itself would then end by SIGINT."""
    program = (
        "from pipeline import cli\n"
        "def command_of(words):\n"
        "    exec('import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)')\n"
        "cli.command_of = command_of\n"
        "cli.main(['any'])\n"
    )
    assert_ended_by_sigterm(program, tmp_path)


def test_a_signal_when_the_native_part_of_ray_has_just_started(
    tmp_path: Path, scene_points: np.ndarray, temporary: Path
) -> None:
    """Its own handler of SIGTERM would print a stack and abort."""
    program = (
        "import os, signal, sys\n"
        "from pipeline import cli\n"
        "import ray\n"
        "start = ray._raylet.CoreWorker\n"
        "def start_and_be_ended(*arguments):\n"
        "    worker = start(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return worker\n"
        "ray._raylet.CoreWorker = start_and_be_ended\n"
        "cli.main(sys.argv[1:])\n"
    )
    assert_ended_by_sigterm(program, tmp_path, *arguments_of("reconstruct", tmp_path, scene_points))
    assert list(temporary.iterdir()) == [], "Ray's files are still there"


def test_a_second_interrupt_ends_at_once_and_the_next_run_removes_what_is_left(
    tmp_path: Path, temporary: Path, scene_points: np.ndarray
) -> None:
    arguments = arguments_of("reconstruct", tmp_path, scene_points)
    command = Command(*arguments)
    command.wait_for_process(TASK["reconstruct"])
    family = command.family()
    command.process.send_signal(signal.SIGINT)
    time.sleep(0.6)
    started = time.monotonic()
    command.process.send_signal(signal.SIGINT)
    assert command.end(60) == 130
    assert time.monotonic() - started < 2
    assert len(command.errors) == 1 and AGAIN in command.errors[0]
    time.sleep(0.2)
    assert alive(family) == []
    again = Command(*arguments)
    again.wait_for_process(TASK["reconstruct"])
    assert len(list(temporary.iterdir())) == 1, "the folder of the ended command is still there"
    again.process.terminate()
    again.end(60)


WORK = """
import time
from dataclasses import dataclass
from pipeline import cli
@dataclass
class Work:
    'Work.'
    def run(self) -> None:
        print("at work", flush=True)
        time.sleep(60)
cli.TESSERA.members["work"] = Work
cli.main(["work"])
"""


def at_work(*wrapper: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-c", WORK],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "at work" not in process.stdout.readline():
        assert process.poll() is None
    return process


def test_a_signal_that_some_import_swallows_ends_the_command_at_its_next_step() -> None:
    with Interruption():
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            check_interrupted()
    check_interrupted()


@pytest.mark.parametrize(("number", "code", "line"), ENDS)
def test_commands_without_ray_end_in_the_same_way(number: int, code: int, line: str) -> None:
    process = at_work()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr.strip()) == (code, line)


def test_an_interrupt_that_a_wrapper_passes_on_as_well_counts_once() -> None:
    process = at_work()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr.strip()) == (130, ENDS[0][2])


def test_a_second_signal_while_ray_starts_leaves_a_word() -> None:
    """What Ray prints then leads nowhere, and so would what we print."""
    program = (
        "import os, ray, signal, threading, time\n"
        "import pipeline.cluster\n"
        "from pipeline.interruption import Interruption\n"
        "def init(**_):\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    threading.Timer(1.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    until = time.monotonic() + 20\n"
        "    while time.monotonic() < until:\n"
        "        try: time.sleep(1)\n"
        "        except KeyboardInterrupt: pass\n"
        "ray.init = init\n"
        "with Interruption(), pipeline.cluster.ray_session('local'): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        143,
        "tessera: ended at once; run the same command again to continue\n",
    )


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    process = at_work("nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 143
    process.communicate()


def test_a_watcher_interrupts_a_command_whose_interrupts_are_ignored() -> None:
    program = (
        "import signal, threading, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from pipeline.interruption import Interruption, interrupt_main\n"
        "with Interruption() as interruption:\n"
        "    threading.Timer(0.2, interrupt_main).start()\n"
        "    try: time.sleep(20)\n"
        "    except KeyboardInterrupt: print('reached', interruption.received)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "reached None", done.stderr
