"""The `tessera` command: typed arguments in, exit code out (0 done, 1 failed, 2 usage, 130 and 143 by signal)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg
from tyro.extras import SubcommandApp

from pipeline import commands
from pipeline.generation.config import GenerateConfig
from pipeline.interruption import Interruption, describe, exit_code
from pipeline.version import software_version

app = SubcommandApp()
preprocess_app = SubcommandApp()
app.command(preprocess_app, name="preprocess", help="Turn meshes or procedural scenes into training data.")
models_app = SubcommandApp()

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


Method = Literal["auto", "exact", "visibility"]
Source = Positional[Path]


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


@preprocess_app.command
def bodies(
    *,
    out: Path,
    sequences: int = 64,
    frames: int = 17,
    seed: int = 0,
    views: bool = False,
    view_size: int = 137,
    address: Address = "auto",
) -> None:
    """Procedural bodies that move and deform (4D), with exact correspondences and occupancy at every time.

    Example: tessera preprocess bodies --out bodies.zarr --sequences 64 --views

    Args:
        out: the Zarr store to make.
        sequences: articulated, bending, twisting and deforming bodies in turn.
        frames: times of each sequence.
        seed: of the first body; the same seed gives the same bytes.
        views: also keep pictures of every time from 4 cameras that stand still, with depth.
        view_size: width and height of a picture in pixels.
    """
    commands.preprocess_bodies(out, sequences, frames, seed, view_size if views else 0, address)


@dataclass(frozen=True)
class MeshArguments:
    """What to make of each mesh."""

    method: Method = "auto"
    """exact keeps closed meshes and refuses others, visibility rebuilds all, auto rebuilds what is not closed."""
    resolution: int = 128
    """lattice cells along the cube of a rebuilt surface."""
    largest_chamfer: float = 0.01
    """a rebuilt surface with a larger mean distance from the input is rejected; longest side = 1."""
    largest_hausdorff: float = 0.06
    """likewise for the largest distance."""
    voxels: bool = False
    """also keep a 32^3 voxel grid of each shape."""
    views: bool = False
    """also keep 24 rendered views (depth and shaded colour) with their cameras."""
    view_size: int = 137
    """width and height of a view in pixels."""
    up: Literal["y", "z"] = "z"
    """the axis that points up in the files (only the views need it)."""
    timeout_s: float = 600.0
    """seconds after which a shape counts as hung."""
    memory_gib: float = 8.0
    """memory that one shape may take."""


@preprocess_app.command
def meshes(
    source: Source,
    *,
    out: Path,
    mesh: OmitArgPrefixes[MeshArguments] = MeshArguments(),
    address: Address = "auto",
) -> None:
    """A folder tree of OBJ, OFF, PLY, STL or GLB meshes, watertight or not.

    Each mesh is closed, scaled to the unit cube, sampled and labelled. What cannot be used is listed with the
    reason. Run the same command again to finish what an interrupted run left.

    Example: tessera preprocess meshes furniture/ --out furniture.zarr --voxels --views

    Args:
        source: the folder; the first folder of a file's path is its category.
        out: the Zarr store to make.
    """
    commands.preprocess_meshes(source, out, mesh, address)


@preprocess_app.command
def shapenet(
    source: Source,
    *,
    out: Path,
    classes: tuple[str, ...] = (),
    mesh: OmitArgPrefixes[MeshArguments] = MeshArguments(up="y"),
    address: Address = "auto",
) -> None:
    """ShapeNetCore v1 or v2, or the prepared files of the Occupancy Networks papers.

    Example: tessera preprocess shapenet ShapeNetCore.v2/ --out chairs.zarr --classes chair sofa

    Args:
        source: the folder that holds the synsets (03001627, ...); their train.lst, val.lst and test.lst count.
        out: the Zarr store to make.
        classes: synset numbers or names to take; all by default.
    """
    commands.preprocess_shapenet(source, out, classes, mesh, address)


@preprocess_app.command
def scannet(source: Source, *, out: Path, address: Address = "auto") -> None:
    """ScanNet scenes as a data set for evaluation: points in metres, upright by the scenes' axis alignment.

    Example: tessera preprocess scannet ScanNet/scans --out scannet.zarr

    Args:
        source: holds scene folders with *_vh_clean.ply or *_vh_clean_2.ply, and scannetv2_val.txt and so on.
        out: the Zarr store to make.
    """
    commands.preprocess_scans("scannet", source, out, address)


@preprocess_app.command
def matterport(source: Source, *, out: Path, address: Address = "auto") -> None:
    """Matterport3D regions or houses as a data set for evaluation: points in metres.

    Example: tessera preprocess matterport v1/scans --out matterport.zarr

    Args:
        source: holds a folder for each house with region*.ply, or with the house's PLY.
        out: the Zarr store to make.
    """
    commands.preprocess_scans("matterport", source, out, address)


@preprocess_app.command
def humans(
    source: Source,
    *,
    out: Path,
    frames: int = 17,
    views: bool = False,
    view_size: int = 137,
    up: Literal["y", "z"] = "z",
    address: Address = "auto",
) -> None:
    """Sequences of meshes with fixed topology (D-FAUST), or the prepared files of Occupancy Flow.

    Example: tessera preprocess humans dfaust/ --out humans.zarr --frames 17

    Args:
        source: holds folders of meshes, .npz files with vertices (T, V, 3) and faces (F, 3), or folders with
            pcl_seq and points_seq.
        out: the Zarr store to make.
        frames: consecutive frames of one sequence; longer recordings are cut.
        views: also keep pictures of every time from 4 cameras that stand still, with depth (of meshes only).
        view_size: width and height of a picture in pixels.
        up: the axis that points up in the files (only the views need it).
    """
    commands.preprocess_humans(source, out, frames, view_size if views else 0, up, address)


@app.command
def train(
    data: Positional[Path],
    *,
    out: Path,
    preset: str = "volume",
    steps: int = 10_000,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    workers: int = 1,
    checkpoint_every: int = 500,
    max_failures: int = 3,
    initial_model: str | None = None,
    imagenet: Path | None = None,
    direct_gradients: bool = False,
    seed: int = 0,
    device: Device = "auto",
    address: Address = "auto",
) -> None:
    """Train a network on a dataset; run it again to continue from the last checkpoint.

    Writes model.safetensors, metrics.jsonl and Ray Train's checkpoints.

    Example: tessera train rooms.zarr --out runs/volume --steps 10000

    Example: tessera train chairs.zarr --out runs/chairs --preset shapenet_3plane --steps 300000

    Example: tessera train bodies.zarr --out runs/moving --preset oflow_img --imagenet resnet18.pth

    Args:
        data: a Zarr store made by `tessera preprocess`.
        out: folder of the run.
        preset: which network: volume, crop_1plane, crop_3plane or crop_combine, which reconstruct scans, or one for
            single objects or moving bodies, such as shapenet_3plane, room_grid64, onet_pointcloud or oflow_pointcloud
            (a wrong name lists them all).
        steps: optimiser steps of the whole schedule.
        batch_size: crops, shapes or sequences in one step of one worker; 2 for scans, else as published.
        learning_rate: peak of the schedule; 1.5e-3 for scans, else 1e-4 as published.
        workers: processes: one for each GPU, or one for each share of the processors.
        checkpoint_every: steps between checkpoints.
        max_failures: worker failures to recover from before giving up.
        initial_model: name or file of weights to start from.
        imagenet: file with torchvision's resnet18 (state dict: PTH, PT, safetensors) that encoders of pictures
            start from.
        direct_gradients: oflow presets: differentiate the solver's steps themselves, many times as fast on a
            processor, in memory that grows with their number; by default the adjoint equation, as published.
        seed: of the initial weights and the batches.
        device: where the network trains.
    """
    commands.train(
        data,
        out,
        commands.TrainOptions(
            preset,
            steps,
            batch_size,
            learning_rate,
            workers,
            checkpoint_every,
            max_failures,
            initial_model,
            imagenet,
            direct_gradients,
            seed,
        ),
        device,
        address,
    )


@dataclass(frozen=True)
class ReadingArguments:
    """How to read the scan's files."""

    columns: str | None = None
    """names of a text file's or NumPy table's columns, such as x,y,z,,red,green,blue (an empty name skips one)."""
    unit: Literal["m", "cm", "mm", "ft", "us-ft"] = "m"
    """unit of the file's coordinates; the mesh comes out in metres."""
    up: Literal["x", "y", "z"] = "z"
    """the axis that points up in the file; the mesh comes out with z up."""
    use_vertices: bool = False
    """take the vertices of a mesh file as points."""
    keep_classes: tuple[int, ...] = ()
    """LAS classes to read, such as 2 6; all but the dropped ones by default."""
    drop_classes: tuple[int, ...] = (7, 18)
    """LAS classes to leave out; 7 and 18 are noise."""
    keep_withheld: bool = False
    """read the points that a LAS file marks as withheld."""
    returns: Literal["all", "first", "last"] = "all"
    """LAS returns to read."""
    station: tuple[str, ...] = ()
    """position X,Y,Z of the scanner in the file's coordinates, for files that do not tell it; may be several."""


@dataclass(frozen=True)
class WindowArguments:
    """How the scene is cut into crops; by default as the network likes it."""

    threshold: float | None = None
    """occupancy probability at the surface, between 0 and 1; lower closes more gaps and thickens more."""
    cells_per_voxel: int = 2
    """lattice cells of the surface along a voxel: 1, 2, 4 or 8."""
    scene_size: float | None = None
    """metres along the unit cube of imported weights, from which their voxel follows; the scan's longest side."""
    query_voxels: int | None = None
    """side of the box that one crop is asked about, in voxels; crops add the network's field of view around it."""
    blend_voxels: int = 4
    """half width of the band in which neighboring crops are blended; 0 for none, as in the original."""
    tiling: Literal["lattice", "box"] = "lattice"
    """box begins at the corner of the scan's bounding box with boxes of exactly QUERY_VOXELS, as the original."""


@dataclass(frozen=True)
class SurfaceArguments:
    """What of the surface goes into the mesh."""

    surface: Literal["closed", "observed"] = "closed"
    """closed for one watertight mesh; observed leaves out what no scan point supports."""
    trim: float = 1.5
    """distance in voxels from every scan point beyond which a vertex counts as guessed."""
    keep_parts: bool = False
    """keep floating parts of less than 24 observed voxels."""
    fit_radius: float = 0.6
    """voxels over which scan points are averaged to place the surface, at most 1; 0 leaves it to the network."""


@app.command
def reconstruct(
    scans: Annotated[Positional[tuple[Path, ...]], arg(metavar="SCAN [SCAN ...]")],
    *,
    out: Path,
    model: str = "volume-default",
    voxel_size: float | None = None,
    mesh: Path | None = None,
    drop_invalid: bool = False,
    reading: OmitArgPrefixes[ReadingArguments] = ReadingArguments(),
    window: OmitArgPrefixes[WindowArguments] = WindowArguments(),
    surface: OmitArgPrefixes[SurfaceArguments] = SurfaceArguments(),
    device: Device = "auto",
    address: Address = "auto",
) -> None:
    """Turn a point-cloud scan, of one file or several, into one watertight mesh.

    Reads PLY, PCD, text (XYZ, TXT, CSV, ASC, PTS, PTX), NPZ, NPY, LAS, LAZ, E57 and OBJ, also gzipped.
    Run the same command again to finish an interrupted run: finished tiles are kept.

    Example: tessera reconstruct house.laz --out runs/house --mesh house.glb

    Example: tessera reconstruct 'site/*.laz' station1.e57 --out runs/site

    Example: tessera reconstruct house.laz --out runs/house --surface observed --mesh house_observed.ply

    Example: tessera reconstruct part.csv --columns id,x,y,z --unit mm --out runs/part

    Example: tessera reconstruct rooms.ply --model crop_room.safetensors --scene-size 4 --query-voxels 40 --out runs/r

    Args:
        scans: the point cloud's files, or quoted patterns; together they are one scan.
        out: the run directory: points by tile, finished tiles, manifest, report.json, mesh.ply.
        model: a packaged model's name (see `tessera models`) or a safetensors file, of a preset volume, crop_1plane,
            crop_3plane, crop_combine or crop_room_grid64.
        voxel_size: side of a feature voxel in metres; by default from the scan's point spacing, of imported weights
            from the scene's size.
        mesh: the final mesh (PLY, OBJ, OFF, GLB or STL by its suffix); OUT/mesh.ply by default.
        drop_invalid: ignore points that are not finite instead of refusing the scan.
        device: where the network runs.
    """
    commands.reconstruct(
        scans, out, model, voxel_size, mesh, drop_invalid, reading, window, surface, device, address
    )


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


AS_IN_THE_PAPER = GenerateConfig()


@app.command
def generate(
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    source: Annotated[Positional[str | None], arg(metavar="[INPUT]")] = None,
    *,
    out: Path,
    shape: OmitArgPrefixes[GenerateConfig] = AS_IN_THE_PAPER,
    device: Device = "auto",
) -> None:
    """Make meshes of single objects, still or moving, from an image, points, voxels, a sequence, or nothing.

    Example: tessera generate onet.safetensors chair.png --out chair.ply

    Example: tessera generate points.safetensors scan.ply --out object.glb --faces 5000

    Example: tessera generate cars.safetensors --samples 4 --seed 7 --out car.ply

    Example: tessera generate cars.safetensors --interpolate 7 8 --frames 16 --out walk.ply

    Example: tessera generate flow.safetensors dancer/ --out dancer.ply

    Example: tessera generate flow.safetensors dancer/ --motion jumper/ --out jumping_dancer.ply

    Args:
        model: a weights file, made by `tessera train` or `tessera models import`.
        source: image; point cloud or mesh; voxel grid (binvox, NPY); folder of frames, or NPZ with their vertices.
        out: the mesh (PLY, OBJ, OFF, GLB, STL); sequences become NAME_0000.ply ..., NAME.glb (animated), NAME.gif.
        device: where the network runs.
    """
    commands.generate(model, source, out, shape, device)


@models_app.command(name="list")
def list_models() -> None:
    """List the weights that ship with Tessera, and the presets that can be trained or imported.

    Example: tessera models list
    """
    commands.list_models()


@models_app.command(name="import")
def import_model(
    file: Annotated[Positional[Path], arg(metavar="FILE.pt")], *, preset: str, out: Path
) -> None:
    """Keep a checkpoint (.pt) of ONet, ConvONet or Occupancy Flow as a weights file of Tessera.

    The file is read without running code from it.

    Example: tessera models import onet_img2mesh.pt --preset onet_img --out onet.safetensors

    Args:
        file: the checkpoint, as the original's training or download script wrote it.
        preset: the published configuration it was trained with; `tessera models` lists them.
        out: the safetensors file to write.
    """
    commands.import_model(file, preset, out)


MODELS_HELP = """Published and imported networks; lists them by default.

Example: tessera models

Example: tessera models import onet_img2mesh.pt --preset onet_img --out onet.safetensors"""
app.command(models_app, name="models", help=MODELS_HELP)


@app.command
def info(
    path: Positional[Path | None] = None,
    *,
    check: bool = False,
    reading: OmitArgPrefixes[ReadingArguments] = ReadingArguments(),
) -> None:
    """Describe a dataset, a run directory, a scan, a mesh or a weights file; without PATH, this installation.

    Of a scan it shows which columns are taken for what, the box, the unit, stations, classes and warnings.

    Example: tessera info rooms.zarr --check

    Example: tessera info runs/site --check

    Example: tessera info survey.csv --columns id,x,y,z

    Args:
        path: what to describe.
        check: verify every file of a dataset or a run directory against its checksum; exit code 1 where one differs.
    """
    commands.info(path, check, reading)


@app.command
def clean(path: Positional[Path], *, yes: bool = False) -> None:
    """List what killed commands have left in a run directory, a dataset or a training folder, or remove it.

    That is half-written files, intermediate results of a finished run, checkpoints that no run continues from, and
    the folders of private Rays whose command has ended. A folder in which another command is at work is refused.

    Example: tessera clean runs/house

    Example: tessera clean runs/house --yes

    Args:
        path: the folder.
        yes: remove it all.
    """
    commands.clean(path, yes)


DESCRIPTION = "Turn huge point-cloud scans into one watertight mesh; tessera --version prints the version."


def main(args: Sequence[str] | None = None) -> None:
    """Run one command, or print the version.

    A failure the user can act on is one line on stderr and exit code 1; a signal one line and 128 and its number.
    """
    from convonet.errors import NetworkError
    from pipeline.errors import PipelineError
    from pipeline.write_errors import in_words
    from preprocessing.errors import GeometryError

    args = list(sys.argv[1:] if args is None else args)
    if args == ["models"]:
        args = ["models", "list"]
    with Interruption() as interruption:
        try:
            try:
                if args == ["--version"]:
                    print(f"tessera {software_version()}")
                else:
                    app.cli(prog="tessera", description=DESCRIPTION, args=args)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:
            _end_by_signal(interruption.received or signal.SIGINT)
        except (GeometryError, NetworkError, PipelineError, ValueError, OSError) as error:
            if interruption.received is not None:  # a failure that the signal has caused
                _end_by_signal(interruption.received)
            if os.environ.get("TESSERA_TRACEBACK"):
                raise
            words = in_words(error) if isinstance(error, OSError) else str(error)
            print(f"tessera: {words}", file=sys.stderr)
            sys.exit(1)


def _end_by_signal(number: int) -> None:
    print(f"tessera: {describe(number)}", file=sys.stderr)
    sys.exit(exit_code(number))


if __name__ == "__main__":
    main()
