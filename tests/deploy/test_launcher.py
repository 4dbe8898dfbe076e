"""`ray up` with our files against a stand-in for the machines: every command in them runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.stand_in import StandIn

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
NODES = """
import sys
from ray._raylet import GcsClient
infos = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10).values()
print("alive", sum(info.state == 0 for info in infos))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def played(name: str) -> dict[str, Any]:
    """The file for one machine that `ray up` reaches without a cloud; its commands and mounts are untouched."""
    config = yaml.safe_load((ROOT / name).read_text())
    config["cluster_name"] = f"tessera-test-{os.getpid()}"
    config["provider"] = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] = {"ssh_user": "tester"}
    for key in ("docker", "available_node_types", "head_node_type", "max_workers"):
        config.pop(key, None)
    return config


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StandIn]:
    temporary = Path("/tmp") / f"ray-up-{os.getpid()}"
    stand_in = StandIn(
        tmp_path / "node",
        tmp_path / "bin",
        tmp_path / "log",
        temporary,
        free_port(),
        is_mounted="premise" in request.node.name,
    )
    stand_in.install()
    yield stand_in
    stand_in.stop()
    shutil.rmtree(temporary, ignore_errors=True)


def nodes(machine: StandIn, address: str, **secret: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NODES, address]
    environment = machine.environment(machine.home) | secret
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/on-premise.yaml"])
def test_ray_up_brings_code_and_token_and_starts_nodes_that_ask_for_it(
    name: str, machine: StandIn, tmp_path: Path
) -> None:
    config, user = played(name), tmp_path / "user"
    (user / ".ray").mkdir(parents=True)
    environment = machine.environment(user)
    generate = [RAY, "get-auth-token", "--generate"]
    subprocess.run(generate, env=environment, check=True, capture_output=True, timeout=60)
    token = (user / ".ray" / "auth_token").read_text()
    (tmp_path / "up.yaml").write_text(yaml.safe_dump(config))
    up = subprocess.run(
        [RAY, "up", str(tmp_path / "up.yaml"), "-y", "--no-config-cache"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    calls = machine.log.read_text()
    assert up.returncode == 0, up.stdout[-3000:] + up.stderr[-2000:] + calls
    assert (machine.home / ".ray" / "auth_token").read_text() == token
    assert (machine.home / ".ray" / "auth_token").stat().st_mode & 0o77 == 0
    assert (machine.home / "tessera" / "constraints.txt").read_text() == (
        ROOT / "constraints.txt"
    ).read_text()
    assert not (machine.home / "tessera" / ".git").exists()
    assert "Would install tessera-mesh-" in calls and "does not provide the extra" not in calls
    if name == "cluster.yaml":
        assert "sudo mount -t nfs4" in calls
    head = next(line for line in calls.splitlines() if line.startswith("ray start --head"))
    assert head.endswith("mode=token")
    address = f"{up_address()}:{machine.port}"
    for command in config["worker_start_ray_commands"]:
        done = machine.run(command, RAY_HEAD_IP=up_address())
        assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 30
    while "alive 2" not in (found := nodes(machine, address, RAY_AUTH_MODE="token")).stdout:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    stranger = nodes(machine, address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert stranger.returncode != 0 and "alive" not in stranger.stdout


def up_address() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())
