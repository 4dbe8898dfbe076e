"""Where work runs, decided by what Ray says: logical GPUs on a machine that has none, and nodes yet to come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

from pipeline import train
from pipeline.cluster import device_lanes, ray_session, run_in_lanes
from pipeline.devices import assigned_device, cluster_has, cpus_for_each, room, uses_gpus
from pipeline.errors import ClusterError
from tests.pipeline.placement import where
from tests.pipeline.small_runs import ball_training
from tests.preprocessing.ball_datasets import BALLS, write_balls


def test_without_gpus_auto_is_the_processors_and_cuda_is_refused() -> None:
    with ray_session("local", cpus=1, gpus=0):
        assert not uses_gpus("auto")
        with pytest.raises(ClusterError, match="no node that Ray knows of has a GPU; use --device cpu"):
            uses_gpus("cuda")
        nodes = ClusterConfig(
            node_group_configs=[NodeGroupConfig(resources={"CPU": 8, "GPU": 4}, max_count=2)]
        )
        client = GcsClient(address=ray.get_runtime_context().gcs_address)
        client.report_cluster_config(nodes.SerializeToString())  # as an autoscaler does
        assert (cluster_has("GPU"), cluster_has("CPU")) == (8, 16)
        assert room(1) == 1  # nodes without GPUs alone
        assert uses_gpus("auto") and uses_gpus("cuda")


@pytest.fixture(scope="module")
def logical_gpu() -> Iterator[None]:
    """A head with a processor, and a node with one more and a GPU that is none."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    try:
        cluster.add_node(num_cpus=2, num_gpus=1)
        cluster.wait_for_nodes()
        with ray_session(cluster.address):
            yield
    finally:
        cluster.shutdown()


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", {("auto", True), ("cpu", False)}), ("cuda", {("cuda", True)}), ("cpu", {("cpu", False)})],
)
def test_tasks_take_the_gpus_of_some_nodes_and_the_processors_of_others_at_once(
    logical_gpu: None, device: str, expected: set[tuple[str, bool]]
) -> None:
    lanes = device_lanes(where, device, 0.5, 2**20, 0)
    assert {result for _, result in run_in_lanes(lanes, range(8))} == expected


def test_a_worker_without_a_gpu_of_its_own_uses_the_processor(logical_gpu: None) -> None:
    assert ray.get(ray.remote(num_gpus=0)(assigned_device).remote("auto")) == "cpu"


def test_workers_get_as_many_processors_as_fit_on_single_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": size} for size in ({"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}, {})]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert [cpus_for_each(workers, use_gpus=False) for workers in (1, 2, 3, 24)] == [16, 8, 8, 1]
    assert cpus_for_each(1, use_gpus=True) == 8
    assert cpus_for_each(2, use_gpus=True) == 1  # one of the two waits for another node


def test_a_training_worker_takes_a_gpu_and_runs_on_what_its_process_sees(
    logical_gpu: None, tmp_path: Path
) -> None:
    balls = write_balls(tmp_path / "balls.zarr", BALLS)
    free: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            free.append(ray.available_resources().get("GPU", 0.0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert train(balls, tmp_path / "run", ball_training(steps=2)).steps == 2
    finally:
        ended.set()
        watcher.join()
    assert min(free) == 0
