"""`ray job submit` to a token-protected head node gives the mesh of the local command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from preprocessing.scan_files import write_scan_ply

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PACKAGES = ("foundation", "convonet", "preprocessing", "pipeline", "jobs")


@dataclass(frozen=True)
class Head:
    """A running head node."""

    url: str
    environment: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "HOME": str(folder)}  # the token lives below HOME
    # The workers of a job find our dependencies in this interpreter; the code comes with the job.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    made = subprocess.run(
        [RAY, "get-auth-token", "--generate"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    assert (folder / ".ray" / "auth_token").stat().st_size > 16
    dashboard, port = free_port(), free_port()
    options = ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--include-dashboard=true"]
    options += [
        f"--port={port}",
        "--node-ip-address=127.0.0.1",
        "--dashboard-agent-listen-port=0",  # the default one may be another cluster's: then no job is accepted
        "--num-cpus=2",
        "--disable-usage-stats",
        "--block",
    ]
    temporary = Path("/tmp") / f"ray-head-{os.getpid()}"  # short: Ray's sockets live below it
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        [RAY, "start", "--head", f"--temp-dir={temporary}", *options],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    started = Head(f"http://127.0.0.1:{dashboard}", environment)
    try:
        deadline = time.monotonic() + 90
        while True:
            listed = subprocess.run(
                [RAY, "job", "list", "--address", started.url],
                env=environment,
                capture_output=True,
                text=True,
            )
            if listed.returncode == 0:
                break
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline, listed.stderr
            time.sleep(1)
        yield started
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            member.send_signal(signal.SIGKILL)
        process.wait()
        log.close()
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user submits from a clone, without its data, caches and environment."""
    target = tmp_path_factory.mktemp("clone")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.mark.cluster
def test_a_submitted_job_makes_the_mesh_of_the_local_command(
    head: Head, working_dir: Path, scene_points: np.ndarray, tmp_path: Path
) -> None:
    scan = tmp_path / "scene.ply"
    write_scan_ply(scan, scene_points[:6_000])
    arguments = ["--voxel-size", "0.2"]
    job = [RAY, "job", "submit", "--address", head.url, "--working-dir", str(working_dir), "--"]
    job += ["python", "-m", "jobs.reconstruct", str(scan), "--out", str(tmp_path / "job"), *arguments]
    submitted = subprocess.run(job, env=head.environment, capture_output=True, text=True, timeout=300)
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [str(Path(sys.executable).with_name("tessera")), "reconstruct", str(scan)]
    command += ["--out", str(tmp_path / "local"), *arguments]
    local = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert local.returncode == 0, local.stderr
    assert (tmp_path / "job" / "mesh.ply").read_bytes() == (tmp_path / "local" / "mesh.ply").read_bytes()


@pytest.mark.cluster
def test_a_job_that_fails_says_so(head: Head, working_dir: Path, tmp_path: Path) -> None:
    job = [RAY, "job", "submit", "--address", head.url, "--working-dir", str(working_dir), "--"]
    job += ["python", "-m", "jobs.reconstruct", str(tmp_path / "no.ply"), "--out", str(tmp_path / "out")]
    submitted = subprocess.run(job, env=head.environment, capture_output=True, text=True, timeout=300)
    assert submitted.returncode != 0
    assert "no such file" in submitted.stdout + submitted.stderr


@pytest.mark.cluster
def test_without_the_token_nothing_is_accepted(head: Head, working_dir: Path) -> None:
    environment = {**head.environment, "RAY_AUTH_TOKEN": "0" * 64}
    job = [RAY, "job", "submit", "--address", head.url, "--working-dir", str(working_dir), "--", "true"]
    refused = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=120)
    assert refused.returncode != 0
    assert "succeeded" not in refused.stdout


def output(head: Head, *command: str, timeout: float = 120) -> str:
    done = subprocess.run(
        [RAY, "job", *command[:1], "--address", head.url, *command[1:]],
        env=head.environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.cluster
def test_a_stopped_job_goes_on_where_it_stopped_and_its_log_is_lines_with_a_summary(
    head: Head, working_dir: Path, tmp_path: Path
) -> None:
    store = tmp_path / "rooms.zarr"
    entry = ["--working-dir", str(working_dir), "--", "python", "-m", "jobs.preprocess", "rooms"]
    entry += ["--out", str(store), "--rooms", "24", "--building-windows", "0"]
    output(head, "submit", "--submission-id", "first", "--no-wait", *entry)
    deadline = time.monotonic() + 120
    while not list(store.glob("records/*.json")):
        assert time.monotonic() < deadline, output(head, "logs", "first")
        time.sleep(0.2)
    output(head, "stop", "first")
    assert "was stopped" in output(head, "status", "first")
    output(head, "submit", "--submission-id", "second", *entry, timeout=240)
    assert "succeeded" in output(head, "status", "second")
    log = output(head, "logs", "second")
    assert "\r" not in log
    assert "preprocess: 24 of 24 shapes" in log
    made, kept = re.search(r"24 of 24 shapes \((\d) shards made, (\d) kept\)", log).groups()
    assert int(made) + int(kept) == 3 and int(kept) >= 1


@pytest.mark.parametrize("name", ["evaluate", "generate", "info", "preprocess", "reconstruct", "train"])
def test_there_is_a_job_for_each_command(name: str) -> None:
    program = [sys.executable, "-m", f"jobs.{name}"]
    shown = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"tessera {name}" in shown.stdout
    wrong = subprocess.run(
        [*program, "--no-such-option"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
