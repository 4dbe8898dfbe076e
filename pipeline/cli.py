"""The `tessera` command: typed arguments in, exit code out (0 done, 1 failed, 2 usage)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from pipeline import commands

app = SubcommandApp()
preprocess_app = SubcommandApp()
app.command(preprocess_app, name="preprocess", help="Turn meshes or procedural scenes into training data.")

Device = Literal["auto", "cpu", "cuda"]
ADDRESS = "auto (the cluster of RAY_ADDRESS, else a private Ray), local, or HOST:PORT"
Address = Annotated[str, arg(help=ADDRESS)]


@app.command
def demo(
    out: Path = Path("out/demo"), *, seed: int = 7, device: Device = "auto", address: Address = "auto"
) -> None:
    """Scan a procedural two-floor building, reconstruct it, measure it against the exact one.

    Writes mesh.ply, preview.png and report.json.

    Example: tessera demo --out out/demo

    Args:
        out: folder for everything the demo makes.
        seed: which building.
        device: where the network runs.
    """
    commands.demo(out, seed, device, address)


@preprocess_app.command
def rooms(
    *,
    out: Path,
    rooms: int = 640,
    building_windows: int = 640,
    seed: int = 0,
    address: Address = "auto",
) -> None:
    """Procedural rooms and furnished buildings, with exact occupancy.

    Run the same command again to finish what an interrupted run left.

    Example: tessera preprocess rooms --out rooms.zarr --rooms 64 --building-windows 64

    Args:
        out: the Zarr store to make.
        rooms: paper-style synthetic rooms (4 to 8 objects each).
        building_windows: 6 m windows of furnished buildings, half scanned, half sampled uniformly.
        seed: of the first scene; the same seed gives the same bytes.
    """
    commands.preprocess_rooms(out, rooms, building_windows, seed, address)


@app.command
def train(
    data: Positional[Path],
    *,
    out: Path,
    steps: int = 10_000,
    batch_size: int = 2,
    learning_rate: float = 1.5e-3,
    workers: int = 1,
    checkpoint_every: int = 500,
    max_failures: int = 3,
    initial_model: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    address: Address = "auto",
) -> None:
    """Train a volume network on a dataset; run it again to continue from the last checkpoint.

    Writes model.safetensors, metrics.jsonl and Ray Train's checkpoints.

    Example: tessera train rooms.zarr --out runs/volume --steps 10000

    Args:
        data: a Zarr store made by `tessera preprocess`.
        out: folder of the run.
        steps: optimiser steps of the whole schedule.
        batch_size: crops in one step of one worker.
        learning_rate: peak of the schedule.
        workers: processes: one for each GPU, or one for each share of the processors.
        checkpoint_every: steps between checkpoints.
        max_failures: worker failures to recover from before giving up.
        initial_model: name or file of weights to start from.
        seed: of the initial weights and the batches.
        device: where the network trains.
    """
    commands.train(
        data,
        out,
        commands.TrainOptions(
            steps, batch_size, learning_rate, workers, checkpoint_every, max_failures, initial_model, seed
        ),
        device,
        address,
    )


@app.command
def reconstruct(
    scan: Positional[Path],
    *,
    out: Path,
    model: str = "volume-default",
    voxel_size: float | None = None,
    mesh: Path | None = None,
    drop_invalid: bool = False,
    device: Device = "auto",
    address: Address = "auto",
) -> None:
    """Turn a point-cloud scan (PLY, PCD, XYZ/TXT, NPZ, LAS, LAZ) into one watertight mesh.

    Run the same command again to finish an interrupted run: finished tiles are kept.

    Example: tessera reconstruct house.laz --out runs/house --mesh house.glb

    Args:
        scan: the point cloud; coordinates in metres, z up.
        out: the run directory: points by tile, finished tiles, manifest, report.json, mesh.ply.
        model: a packaged model's name (see `tessera models`) or a safetensors file.
        voxel_size: side of a feature voxel in metres; by default from the scan's point spacing.
        mesh: the final mesh (PLY, OBJ, OFF, GLB or STL by its suffix); OUT/mesh.ply by default.
        drop_invalid: ignore points that are not finite instead of refusing the scan.
        device: where the network runs.
    """
    commands.reconstruct(scan, out, model, voxel_size, mesh, drop_invalid, device, address)


@app.command
def evaluate(
    mesh: Positional[Path],
    reference: Positional[Path],
    *,
    thresholds: tuple[float, ...] = (),
    samples: int = 100_000,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Measure a mesh against a reference: IoU, Chamfer-L1, accuracy, completeness, normals, F-scores.

    Example: tessera evaluate runs/house/mesh.ply truth.ply --thresholds 0.01 0.05 --json metrics.json

    Args:
        mesh: the mesh to measure.
        reference: the mesh to measure it against.
        thresholds: distances in the meshes' unit for further F-scores, beside 1% of the unit cube.
        samples: points drawn on each surface, and queries for the IoU.
        seed: of the samples.
        json: also write the metrics to this file.
    """
    commands.evaluate(mesh, reference, thresholds, samples, seed, json)


@app.command
def models() -> None:
    """List the weights that ship with Tessera, with their sizes.

    Example: tessera models
    """
    commands.models()


@app.command
def info(path: Positional[Path | None] = None) -> None:
    """Describe a dataset, a run directory, a scan or a weights file; without PATH, this installation.

    Example: tessera info rooms.zarr

    Args:
        path: what to describe.
    """
    commands.info(path)


def main(args: Sequence[str] | None = None) -> None:
    """Run one command; a failure the user can act on is one line on stderr and exit code 1."""
    from convonet.errors import NetworkError
    from pipeline.errors import PipelineError
    from preprocessing.errors import GeometryError

    try:
        app.cli(prog="tessera", description="Huge point-cloud scans to one watertight mesh.", args=args)
    except (GeometryError, NetworkError, PipelineError, ValueError) as error:
        if os.environ.get("TESSERA_TRACEBACK"):
            raise
        print(f"tessera: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if os.environ.get("TESSERA_TRACEBACK"):
            raise
        print(f"tessera: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("tessera: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
