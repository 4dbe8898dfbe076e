"""A private Ray is private: it listens on loopback alone, and runs nothing for who does not know its token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from pipeline.cluster import ray_session

CLIENT = """
import sys
from ray._raylet import GcsClient
print("jobs", len(GcsClient(address=sys.argv[1]).get_all_job_info(timeout=5)))
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[psutil.Process]]:
    """This process and those of its private Ray, started as by a user who has switched authentication off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with ray_session("local", cpus=1):
            ray.get(ray.remote(lambda: 1).remote())
            this = psutil.Process()
            yield [this, *this.children(recursive=True)]


def token(family: list[psutil.Process]) -> str:
    (raylet,) = (process for process in family if process.name() == "raylet")
    return raylet.environ()["RAY_AUTH_TOKEN"]


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss (iproute2) lists sockets")
def test_it_listens_on_loopback_alone(family: list[psutil.Process]) -> None:
    listed = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    ours = [line for line in listed.splitlines() if any(f"pid={p.pid}," in line for p in family)]
    addresses = [line.split()[3].rpartition(":")[0].removeprefix("[::ffff:").rstrip("]") for line in ours]
    assert len(addresses) > 3  # GCS, raylet, agents and workers
    assert set(addresses) == {"127.0.0.1"}, ours


def test_only_who_knows_the_token_is_answered(family: list[psutil.Process]) -> None:
    address = ray.get_runtime_context().gcs_address
    clients = {
        "no token": {"RAY_AUTH_MODE": "disabled"},
        "wrong token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        "the token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token(family)},
    }
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", CLIENT, address],
            env={**os.environ, **secret},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, secret in clients.items()
    }
    answers = {name: client.communicate(timeout=60) for name, client in running.items()}
    assert answers["the token"][0] == "jobs 1\n", answers
    for name in ("no token", "wrong token"):
        assert running[name].returncode != 0 and "jobs" not in answers[name][0]
        assert "nauthenticated" in answers[name][1] or "InvalidAuthToken" in answers[name][1], answers


def test_the_token_is_on_no_disk_and_the_callers_environment_stays(family: list[psutil.Process]) -> None:
    assert len(token(family)) == 64
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert not {"RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} & set(os.environ)
    assert not (Path.home() / ".ray" / "auth_token").exists()
