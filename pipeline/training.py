"""The training stage: Ray Train around the plain-torch step, with exact resume and failure retries."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn

from convonet.precision import choose_device
from convonet.training import CropBatch, Fit, TrainingConfig, TrainingState, batch_logits, occupancy_iou
from convonet.volume_network import VolumeNetwork, VolumeNetworkConfig
from convonet.weights import load_network, save_network
from pipeline.cluster import available_cpus, ray_session
from pipeline.errors import ClusterError, RunDirectoryError
from pipeline.version import software_version
from preprocessing.dataset import read_layout
from preprocessing.training_crops import CropConfig, CropSource

CHECKPOINT_FILE = "state.pt"


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        network: sizes of the network.
        training: schedule, learning rate, seed.
        crops: what a training crop looks like.
        workers: processes, one for each GPU or for a share of the processors.
        checkpoint_every: steps between checkpoints (and validations).
        validation_batches: batches of the validation split behind each figure.
        max_failures: worker failures to recover from before giving up.
        initial_model: weights to start from instead of random ones.
    """

    network: VolumeNetworkConfig = field(default_factory=VolumeNetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    workers: int = 1
    checkpoint_every: int = 500
    validation_batches: int = 12
    max_failures: int = 3
    initial_model: str | None = None


@dataclass(frozen=True)
class TrainSummary:
    """What a training run ended with."""

    model: Path
    steps: int
    validation_iou: float
    seconds: float


def _validate(state: TrainingState, config: TrainConfig, source: CropSource, device: torch.device) -> float:
    """IoU of the averaged weights over fixed validation batches."""
    network = VolumeNetwork(config.network).to(device)
    network.load_state_dict(state.averaged)
    logits, labels = [], []
    with torch.no_grad():
        for number in range(config.validation_batches):
            batch = CropBatch.from_arrays(source.batch(number, config.training.batch_size), device)
            logits.append(batch_logits(network.eval(), batch))
            labels.append(batch.occupancy)
    return occupancy_iou(torch.cat(logits), torch.cat(labels))


def _checkpoint(state: TrainingState, config: TrainConfig, out: Path, metrics: dict[str, float]) -> None:
    """Save the state and the averaged weights (rank 0), and report to Ray Train (every rank)."""
    checkpoint = None
    if ray.train.get_context().get_world_rank() == 0:
        facts = {"steps": str(state.step), "software": software_version()}
        save_network(out / "model.safetensors", state.network, state.averaged, facts)
        folder = out / "checkpoint.partial"
        folder.mkdir(exist_ok=True)
        state.save(folder / CHECKPOINT_FILE)
        checkpoint = Checkpoint.from_directory(folder)
    ray.train.report(metrics, checkpoint=checkpoint)


def _train_worker(job: dict[str, Any]) -> None:
    """One process of the training run; continues from the run's last checkpoint by itself."""
    config: TrainConfig = job["config"]
    data, out = Path(job["data"]), Path(job["out"])
    context = ray.train.get_context()
    device = choose_device("auto" if job["use_gpu"] else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(job["threads"])
    torch.manual_seed(config.training.seed)
    network = load_network(config.initial_model) if config.initial_model else VolumeNetwork(config.network)
    network.requires_grad_(True).to(device)
    state = TrainingState.fresh(network, config.training)
    restored = ray.train.get_checkpoint()
    if restored is not None:
        with restored.as_directory() as folder:
            state.load(Path(folder) / CHECKPOINT_FILE)
    model: nn.Module = network
    if context.get_world_size() > 1:
        ids = [device.index or 0] if device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(network, device_ids=ids)
    validation = CropSource(data, "val", config.crops, seed=1)
    started, first_step = time.monotonic(), state.step
    log = out / "metrics.jsonl"

    def on_step(current: TrainingState, metrics: dict[str, float]) -> None:
        is_last = current.step == config.training.steps
        is_checkpoint = is_last or current.step % config.checkpoint_every == 0
        if is_checkpoint:
            metrics["validation_iou"] = _validate(current, config, validation, device)
        metrics["step"] = current.step
        metrics["seconds_per_step"] = (time.monotonic() - started) / (current.step - first_step)
        if context.get_world_rank() == 0 and (is_checkpoint or current.step % 20 == 0):
            with log.open("a") as file:
                file.write(json.dumps(metrics) + "\n")
        if is_checkpoint:
            _checkpoint(current, config, out, metrics)

    source = CropSource(data, "train", config.crops, config.training.seed)
    Fit(source, config.training, device, context.get_world_rank(), on_step).run(model, state)


def train(
    data: Path, out: Path, config: TrainConfig | None = None, device: str = "auto", address: str = "auto"
) -> TrainSummary:
    """Train a volume network on a dataset.

    Run it again with the same `out` to continue an interrupted run from its last checkpoint.

    Raises:
        DatasetError: if `data` is not a dataset.
        RunDirectoryError: if `out` holds a training run of another configuration.
        ClusterError: if Ray cannot be reached or the workers failed too often.
    """
    config = config or TrainConfig()
    data, out = Path(data).absolute(), Path(out).absolute()
    read_layout(data)
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "config.json"
    description = json.dumps({"data": str(data), "config": asdict(config)}, indent=1)
    if stored.exists() and stored.read_text() != description:
        raise RunDirectoryError(f"{out}: holds a training run of another configuration; choose another --out")
    stored.write_text(description)
    started = time.monotonic()
    use_gpu = choose_device(device).type == "cuda"
    with ray_session(address):
        threads = max(1, available_cpus() // config.workers)
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={
                "config": config,
                "data": str(data),
                "out": str(out),
                "use_gpu": use_gpu,
                "threads": threads,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": threads} | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=str(out),
                failure_config=FailureConfig(max_failures=config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        result = trainer.fit()
    if result.error is not None:
        raise ClusterError(f"training failed: {result.error}; logs are in {out}/ray")
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return TrainSummary(
        out / "model.safetensors",
        int(last["step"]),
        float(last["validation_iou"]),
        time.monotonic() - started,
    )
