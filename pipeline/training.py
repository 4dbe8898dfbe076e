"""The training stage: Ray Train around the plain-torch step, with exact resume and failure retries."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import ray.train
import torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from torch import nn

from convonet.errors import WeightsError
from convonet.family import NetworkConfig, SequenceSampling, ShapeSampling
from convonet.layers.resnet18 import load_imagenet_weights
from convonet.precision import check_device, choose_device
from convonet.registry import family_of, preset
from convonet.training import (
    BatchSource,
    Criterion,
    Fit,
    Objective,
    TrainingConfig,
    TrainingState,
)
from convonet.weights import KIND_KEY, load_any_network, packaged_models, read_header, save_network
from foundation.atomic_file import appearing
from foundation.errors import SettingError
from foundation.local_paths import local_path
from foundation.settings import check_at_least
from pipeline.allocator import keep_freed_memory
from pipeline.cluster import ray_session
from pipeline.devices import assigned_device, cpus_for_each, uses_gpus
from pipeline.errors import ClusterError, RunDirectoryError
from pipeline.lease import lease
from pipeline.litter import litter_of_training, remove
from pipeline.overwriting import refuse_overwriting
from pipeline.process_group import process_group
from pipeline.progress import Progress
from pipeline.version import software_version
from pipeline.write_errors import IS_FULL
from preprocessing.batches.training_crops import CropConfig, CropSource
from preprocessing.batches.training_sequences import SequenceConfig, SequenceSource
from preprocessing.batches.training_shapes import ShapeConfig, ShapeSource

CHECKPOINT_FILE = "state.pt"
CHECKPOINT_FOLDER = "checkpoint.partial"
RAY_FOLDER = "ray"
METRICS_FILE = "metrics.jsonl"
FOLLOW_S = 1.0
SAMPLES: dict[type, type[Any]] = {
    ShapeSampling: ShapeConfig,
    SequenceSampling: SequenceConfig,
    type(None): type(None),
}
"""What draws the samples that a family asks for: those of scenes are crops."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        network: kind and sizes of the network; `pipeline.training_presets` makes runs of the published ones.
        training: schedule, learning rate, seed.
        crops: what a training crop of a network that reconstructs scans looks like.
        workers: processes, one for each GPU or for a share of the processors.
        checkpoint_every: steps between checkpoints (and validations).
        validation_batches: batches of the validation split behind each figure.
        max_failures: worker failures to recover from before giving up.
        initial_model: weights to start from instead of random ones.
        imagenet: file with a ResNet-18 trained on ImageNet for the encoders of pictures to start from.
        samples: what any other network sees and is asked; None for a network of scans.
        loss_terms: of a family whose loss has several; None for the usual ones.
    """

    network: NetworkConfig = field(default_factory=lambda: preset("volume"))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    workers: int = 1
    checkpoint_every: int = 500
    validation_batches: int = 12
    max_failures: int = 3
    initial_model: str | None = None
    imagenet: str | None = None
    samples: ShapeConfig | SequenceConfig | None = None
    loss_terms: Any = None

    def __post_init__(self) -> None:
        check_at_least(1, workers=self.workers, checkpoint_every=self.checkpoint_every)
        check_at_least(-1, max_failures=self.max_failures)  # -1 stands for no limit
        wanted = family_of(self.network).sampling(self.network, "")
        if type(self.samples) is not SAMPLES[type(wanted)]:
            raise SettingError(
                f"a {self.network.kind} network is not trained on {type(self.samples).__name__} samples"
            )
        if self.initial_model is not None and self.imagenet is not None:
            raise SettingError(
                "an initial model brings its own encoder of pictures; pass --initial-model or --imagenet"
            )

    @property
    def objective(self) -> Objective:
        """What the network is trained for."""
        return family_of(self.network).objective(self.network, self.loss_terms)

    def source(self, data: Path, split: str, seed: int) -> BatchSource:
        """Where its batches come from.

        Raises:
            DatasetError: if the dataset lacks what the network takes.
        """
        if self.samples is None:
            return CropSource(data, split, self.crops, seed)
        if isinstance(self.samples, ShapeConfig):
            return ShapeSource(data, split, self.samples, seed)
        return SequenceSource(data, split, self.samples, seed)

    @property
    def validation_split(self) -> str:
        """That of the figures: what can only be known of training shapes is measured on these."""
        match self.samples:
            case ShapeConfig(inputs="shape") | SequenceConfig(inputs="nothing"):
                return "train"
        return "val"


@dataclass(frozen=True)
class TrainSummary:
    """What a training run ended with: an IoU, or for a network without a decoder a mean distance."""

    model: Path
    steps: int
    validation_iou: float | None
    seconds: float
    validation_distance: float | None = None


def _initial_network(config: TrainConfig) -> nn.Module:
    if config.initial_model is not None:
        return family_of(config.network).trainable(load_any_network(config.initial_model))
    network = config.network.build()
    if config.imagenet is not None:
        load_imagenet_weights(network, Path(config.imagenet))
    return network


def _check_initial_weights(config: TrainConfig) -> None:
    if config.imagenet is not None:
        _initial_network(config)  # refuses the file, or the network
    if config.initial_model is None:
        return
    kind, wanted = read_header(config.initial_model)[KIND_KEY], config.network.kind
    if kind != wanted:
        raise WeightsError(
            f"{config.initial_model}: holds a network of kind {kind}, but this run trains one of kind {wanted}"
        )


def _with_absolute_files(config: TrainConfig) -> TrainConfig:
    """The same run for workers, which start in another directory."""
    model, imagenet = config.initial_model, config.imagenet
    if model is not None and model not in packaged_models():
        model = str(Path(model).absolute())
    if imagenet is not None:
        imagenet = str(Path(imagenet).absolute())
    return replace(config, initial_model=model, imagenet=imagenet)


def _validate(
    state: TrainingState, config: TrainConfig, source: BatchSource, device: torch.device
) -> dict[str, float]:
    """A figure of the averaged weights over fixed validation batches."""
    network = state.network.config.build().to(device)  # type: ignore[union-attr,operator]
    network.load_state_dict(state.averaged)
    objective, size = config.objective, config.training.batch_size
    arrays = (source.batch(number, size) for number in range(config.validation_batches))
    with torch.no_grad():
        return objective.validate(network.eval(), (objective.load(batch, device) for batch in arrays))


def _checkpoint(state: TrainingState, config: TrainConfig, out: Path, metrics: dict[str, float]) -> None:
    """Save the state and the averaged weights (rank 0), and report to Ray Train (every rank)."""
    checkpoint = None
    if ray.train.get_context().get_world_rank() == 0:
        facts = {"steps": str(state.step), "software": software_version()}
        folder = out / CHECKPOINT_FOLDER
        try:
            save_network(out / "model.safetensors", state.network, state.averaged, facts)
            folder.mkdir(exist_ok=True)
            state.save(folder / CHECKPOINT_FILE)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            reason = str(error).strip().splitlines()[0]
            raise RunDirectoryError(
                f"{out}: no checkpoint can be written ({reason}); free some space or mend the file system"
            ) from error
        checkpoint = Checkpoint.from_directory(folder)
    ray.train.report(metrics, checkpoint=checkpoint)


def _resume(state: TrainingState, out: Path) -> None:
    """Continue from the file that rank 0 wrote last; where it cannot be read, from Ray Train's copy of one."""
    with suppress(OSError, RuntimeError, EOFError, UnpicklingError):
        state.load(out / CHECKPOINT_FOLDER / CHECKPOINT_FILE)
        return
    restored = ray.train.get_checkpoint()
    if restored is not None:
        with restored.as_directory() as folder:
            state.load(Path(folder) / CHECKPOINT_FILE)


def _drop_damaged_snapshot(out: Path) -> None:
    """Remove Ray Train's list of checkpoints where it cannot be used.

    It is written in place, so that a kill or a full disk may cut it short. Ray refuses to start with such a list,
    and with one of another version of itself.
    """
    snapshot = out / RAY_FOLDER / "checkpoint_manager_snapshot.json"
    try:
        listed = json.loads(snapshot.read_text())
        is_usable = listed["ray_version"] == ray.__version__ and all(
            (out / RAY_FOLDER / entry["checkpoint_dir_name"] / CHECKPOINT_FILE).exists()
            for entry in listed["checkpoint_results"]
        )
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        is_usable = False
    if not is_usable:
        snapshot.unlink()


def _train_worker(job: dict[str, Any]) -> None:
    """One process of the training run."""
    context = ray.train.get_context()
    device = choose_device(assigned_device("auto"))
    if context.get_world_size() == 1:
        _fit(job, device)
        return
    with process_group(context.get_world_rank(), context.get_world_size(), device):
        _fit(job, device)


def _fit(job: dict[str, Any], device: torch.device) -> None:
    """Train; continues from the run's last checkpoint by itself."""
    config: TrainConfig = job["config"]
    data, out = Path(job["data"]), Path(job["out"])
    context = ray.train.get_context()
    if device.type == "cpu":
        torch.set_num_threads(job["threads"])
        keep_freed_memory()
    torch.manual_seed(config.training.seed)
    network = _initial_network(config)
    network.to(device)
    state = TrainingState.fresh(network, config.training)
    _resume(state, out)
    objective, wrapped = config.objective, None
    if context.get_world_size() > 1:
        ids = [device.index or 0] if device.type == "cuda" else None
        wrapped = nn.parallel.DistributedDataParallel(
            Criterion(network, objective), device_ids=ids, find_unused_parameters=objective.may_idle
        )
    validation = config.source(data, config.validation_split, seed=1)
    started, first_step = time.monotonic(), state.step
    log = out / METRICS_FILE

    def on_step(current: TrainingState, metrics: dict[str, float]) -> None:
        is_last = current.step == config.training.steps
        is_checkpoint = is_last or current.step % config.checkpoint_every == 0
        if is_checkpoint:
            metrics |= _validate(current, config, validation, device)
        metrics["step"] = current.step
        metrics["seconds_per_step"] = (time.monotonic() - started) / (current.step - first_step)
        if context.get_world_rank() == 0 and (is_checkpoint or current.step % 20 == 0):
            with log.open("a") as file:
                file.write(json.dumps(metrics) + "\n")
        if is_checkpoint:
            _checkpoint(current, config, out, metrics)

    source = config.source(data, "train", config.training.seed)
    Fit(source, config.training, device, context.get_world_rank(), on_step, objective).run(state, wrapped)


def _fit_and_follow(trainer: DataParallelTrainer, log: Path, steps: int) -> None:
    """Run a trainer in a thread, where it leaves Ctrl-C to us, and report the steps that its workers have logged."""
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    before = _last_step(log)
    with Progress("train", steps, "step", before) as progress:
        thread.start()
        while thread.is_alive():
            thread.join(FOLLOW_S)
            reached = _last_step(log)
            progress.update(max(0, reached - before))
            before = max(before, reached)
        if failures:
            raise failures[0]


def _refuse_full_disk(reason: str, out: Path) -> None:
    """Raise what a worker said of the disk; where Ray Train or torch met it first, in the same words."""
    _, _, words = reason.partition(f"{RunDirectoryError.__name__}: ")
    if not words and os.strerror(errno.ENOSPC) in reason:
        words = f"{out}: {os.strerror(errno.ENOSPC)}; {IS_FULL}"
    if words:
        raise RunDirectoryError(
            f"{words}, then run the same command again to continue from the last checkpoint"
        )


def _last_step(log: Path) -> int:
    metrics = read_metrics(log) if log.exists() else []
    return int(metrics[-1]["step"]) if metrics else 0


def read_metrics(log: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; one that a full disk or a kill has cut short is left out."""
    found = []
    for line in log.read_bytes().splitlines():
        with suppress(ValueError):
            metrics = json.loads(line)
            if isinstance(metrics, dict) and "step" in metrics:
                found.append(metrics)
    return found


def train(
    data: Path, out: Path, config: TrainConfig | None = None, device: str = "auto", address: str = "auto"
) -> TrainSummary:
    """Train a network on a dataset; by default a volume network.

    Run it again with the same `out` to continue an interrupted run from its last checkpoint.

    Raises:
        DatasetError: if `data` is not a dataset, or lacks what the network takes.
        WeightsError: if the initial weights are missing, or of another kind of network.
        RunDirectoryError: if `out` holds a training run of another configuration, or another command works on it.
        ClusterError: if Ray cannot be reached or the workers failed too often.
    """
    check_device(device)
    config = config or TrainConfig()
    data, out = local_path(data).absolute(), local_path(out).absolute()
    given = [name for name in (config.initial_model, config.imagenet) if name is not None]
    weights = [path for path in map(local_path, given) if path.exists()]
    refuse_overwriting([out, out / "model.safetensors"], [data, *weights])
    _check_initial_weights(config)
    config = _with_absolute_files(config)
    for split in ("train", config.validation_split):
        config.source(data, split, seed=0)  # refuses here, before any worker starts
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "config.json"
    description = json.dumps({"data": str(data), "config": asdict(config)}, indent=1)
    if not stored.exists():
        with appearing(stored) as partial:
            partial.write_text(description)
    elif stored.read_bytes() != description.encode():
        raise RunDirectoryError(f"{out}: holds a training run of another configuration; choose another --out")
    started = time.monotonic()
    with lease(out), ray_session(address):
        remove(litter_of_training(out))
        _drop_damaged_snapshot(out)
        use_gpu = uses_gpus(device)
        threads = cpus_for_each(config.workers, use_gpu)
        trainer = DataParallelTrainer(
            _train_worker,
            train_loop_config={
                "config": config,
                "data": str(data),
                "out": str(out),
                "threads": threads,
            },
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": threads} | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=RunConfig(
                name=RAY_FOLDER,
                storage_path=str(out),
                failure_config=FailureConfig(max_failures=config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        try:
            _fit_and_follow(trainer, out / METRICS_FILE, config.training.steps)
        except TrainingFailedError as error:
            reason = str(error).strip().splitlines()[-1]  # the lines above are the worker's traceback
            _refuse_full_disk(reason, out)
            raise ClusterError(
                f"training failed ({reason}); logs are in {out}/ray. Run the same command again to continue from "
                "the last checkpoint"
            ) from error
    last = read_metrics(out / METRICS_FILE)[-1]
    return TrainSummary(
        out / "model.safetensors",
        int(last["step"]),
        last.get("validation_iou"),
        time.monotonic() - started,
        last.get("validation_distance"),
    )
