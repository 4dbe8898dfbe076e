"""The cluster files against Ray's own loaders, and against what the documentation promises of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = ("cluster.yaml", "deploy/on-premise.yaml")
FILES = (*LAUNCHED, "deploy/kuberay.yaml", "deploy/Dockerfile")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def ray_cluster() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text()))
    (cluster,) = (document for document in documents if document["kind"] == "RayCluster")
    return cluster


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launcher_accepts_the_file(name: str) -> None:
    prepared = prepare_config(read(name))
    validate_config(prepared)  # in the launcher's order: defaults first, then the schema
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_node_gets_this_code_this_token_and_a_ray_that_asks_for_it(name: str) -> None:
    config = read(name)
    assert config["file_mounts"] == {"~/tessera": ".", "~/.ray/auth_token": "~/.ray/auth_token"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2 and all("RAY_AUTH_MODE=token" in command for command in started)
    assert "--dashboard-host=127.0.0.1" in started[0]
    installs = [command for command in config["setup_commands"] if "pip install" in command]
    assert installs and all("-c ~/tessera/constraints.txt ~/tessera[" in command for command in installs)


def test_no_file_installs_a_package_of_our_names_from_an_index() -> None:
    for name in FILES:
        for word in re.findall(
            r"""[\s"']((?:tessera|tessera-mesh)(?:\[[\w,]+\])?)(?=[\s"']|$)""", (ROOT / name).read_text()
        ):
            line = next(line for line in (ROOT / name).read_text().splitlines() if word in line)
            assert "pip install" not in line, f"{name}: {line}"


def test_the_autoscaler_on_kubernetes_reads_the_manifest() -> None:
    cluster = ray_cluster() | {"metadata": {"name": "tessera", "namespace": "default"}}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1 and types["gpu"]["max_workers"] == 4
    assert types["cpu"]["resources"]["CPU"] == 16 and types["cpu"]["min_workers"] == 0
    assert config["idle_timeout_minutes"] == 10


def test_the_manifest_has_a_token_and_the_shared_files_in_every_pod() -> None:
    spec = ray_cluster()["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert {"name": "shared", "mountPath": "/shared"} in pod["containers"][0]["volumeMounts"]
        assert any(
            "persistentVolumeClaim" in volume for volume in pod["volumes"] if volume["name"] == "shared"
        )


def test_every_placeholder_stands_in_the_table_and_every_row_in_a_file() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    rows = set(re.findall(r"^\| `([A-Z][A-Z_0-9]+)`", page, re.MULTILINE))
    found = set()
    for name in FILES:
        for line in (ROOT / name).read_text().splitlines():
            code = line.split("#")[0]
            found |= set(re.findall(r"(?<![\w$./=-])(?:[A-Z][A-Z_0-9]{3,})(?![\w=])", code))
    instructions = {"FROM", "COPY", "BASE", "RAY_AUTH_MODE", "RAY_HEAD_IP"}
    assert found - instructions == rows
