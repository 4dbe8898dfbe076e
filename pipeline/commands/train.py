"""`tessera train`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.commands.options import Device


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a network on a dataset; run it again to continue from the last checkpoint.

    Writes model.safetensors, metrics.jsonl and Ray Train's checkpoints.

    Example: tessera train rooms.zarr --out runs/volume --steps 10000

    Example: tessera train chairs.zarr --out runs/chairs --preset shapenet_3plane --steps 300000

    Example: tessera train bodies.zarr --out runs/moving --preset oflow_img --imagenet resnet18.pth

    Attributes:
        data: Zarr store made by `tessera preprocess`.
        out: folder of the run.
        preset: network to train: volume, crop_1plane, crop_3plane or crop_combine for scans; for single objects or
            moving bodies for instance shapenet_3plane, room_grid64, onet_pointcloud or oflow_pointcloud (`tessera
            models` lists all).
        steps: optimizer steps of the whole schedule.
        batch_size: number of crops, shapes or sequences in one step of one worker; 2 for scans, else as published.
        learning_rate: peak learning rate of the schedule; 1.5e-3 for scans, else 1e-4 as published.
        workers: number of training processes; each takes one GPU, or an equal share of the processors.
        checkpoint_every: optimizer steps between checkpoints.
        max_failures: number of worker failures to recover from before giving up.
        initial_model: name or file of the weights to start from.
        imagenet: file of torchvision's resnet18 weights (state dict: PTH, PT, safetensors) that image encoders start
            from.
        direct_gradients: gradients through the solver's own steps (oflow presets): many times faster on a CPU, with
            memory that grows with the number of steps; by default the adjoint equation, as published.
        seed: random seed of the initial weights and the batches.
        device: device that the network trains on.
        address: {address}
    """

    data: Path = field(metadata={"place": "DATA"})
    out: Path
    preset: str = "volume"
    steps: int = 10_000
    batch_size: int | None = None
    learning_rate: float | None = None
    workers: int = 1
    checkpoint_every: int = 500
    max_failures: int = 3
    initial_model: str | None = None
    imagenet: Path | None = None
    direct_gradients: bool = False
    seed: int = 0
    device: Device = "auto"
    address: str = "auto"

    def run(self) -> None:
        """Train, and print what the network reached."""
        from pipeline.training import train
        from pipeline.training_presets import preset_config, preset_training

        usual = preset_training(self.preset, self.batch_size, self.learning_rate)
        training = replace(usual, steps=self.steps, seed=self.seed)
        config = replace(
            preset_config(self.preset, self.data, training, self.direct_gradients),
            workers=self.workers,
            checkpoint_every=self.checkpoint_every,
            max_failures=self.max_failures,
            initial_model=self.initial_model,
            imagenet=None if self.imagenet is None else str(self.imagenet),
        )
        summary = train(self.data, self.out, config, self.device, self.address)
        reached = (
            f"validation distance {summary.validation_distance:.4f}"
            if summary.validation_iou is None
            else f"validation IoU {summary.validation_iou:.3f}"
        )
        print(f"{summary.model}: {summary.steps} steps, {reached}, {summary.seconds:.0f} s")
