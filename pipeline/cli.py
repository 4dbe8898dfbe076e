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
ADDRESS = "Ray cluster: auto (that of RAY_ADDRESS, else a private one), local (a private one), or HOST:PORT"
Address = Annotated[str, arg(help=ADDRESS)]


@app.command
def demo(
    out: Path = Path("out/demo"), *, seed: int = 7, device: Device = "auto", address: Address = "auto"
) -> None:
    """Scan a procedural two-floor building, reconstruct it, and compare the mesh with the exact one.

    Writes mesh.ply, preview.png and report.json.

    Example: tessera demo --out out/demo

    Args:
        out: folder of the results.
        seed: random seed of the building.
        device: device that the network runs on.
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
    """Make a dataset of procedural rooms and furnished buildings, with exact occupancy.

    Run the same command again to finish an interrupted run.

    Example: tessera preprocess rooms --out rooms.zarr --rooms 64 --building-windows 64

    Args:
        out: Zarr store to write.
        rooms: number of synthetic rooms as in the paper (4 to 8 objects each).
        building_windows: number of 6 m windows of furnished buildings, half scanned, half sampled uniformly.
        seed: random seed of the first scene; the same seed gives the same bytes.
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
    """Make a dataset of procedural moving bodies (4D), with exact correspondences and occupancy at every time.

    Example: tessera preprocess bodies --out bodies.zarr --sequences 64 --views

    Args:
        out: Zarr store to write.
        sequences: number of bodies; they are articulated, bending, twisting and deforming in turn.
        frames: number of times in each sequence.
        seed: random seed of the first body; the same seed gives the same bytes.
        views: also render images and depth of every time from 4 fixed cameras.
        view_size: width and height of an image in pixels.
    """
    commands.preprocess_bodies(out, sequences, frames, seed, view_size if views else 0, address)


@dataclass(frozen=True)
class MeshArguments:
    """How each mesh is prepared."""

    method: Method = "auto"
    """conversion to a solid: exact takes closed meshes only, visibility rebuilds all, auto rebuilds open ones."""
    resolution: int = 128
    """lattice cells along each side of the cube in which surfaces are rebuilt."""
    largest_chamfer: float = 0.01
    """largest mean distance of a rebuilt surface from the input, in longest sides of the shape."""
    largest_hausdorff: float = 0.06
    """largest distance of a rebuilt surface from the input, in longest sides of the shape."""
    voxels: bool = False
    """also store a 32^3 voxel grid of each shape."""
    views: bool = False
    """also render 24 views of each shape (depth and shaded color), with their cameras."""
    view_size: int = 137
    """width and height of a view in pixels."""
    up: Literal["y", "z"] = "z"
    """axis that points up in the files; used by the views only."""
    timeout_s: float = 600.0
    """time limit for one shape in seconds."""
    memory_gib: float = 8.0
    """memory limit for one shape in GiB."""


@preprocess_app.command
def meshes(
    source: Source,
    *,
    out: Path,
    mesh: OmitArgPrefixes[MeshArguments] = MeshArguments(),
    address: Address = "auto",
) -> None:
    """Make a dataset of a folder tree of OBJ, OFF, PLY, STL or GLB meshes, watertight or not.

    Each mesh is closed, scaled to the unit cube, sampled and labeled. Meshes that cannot be used are listed with
    the reason. Run the same command again to finish an interrupted run.

    Example: tessera preprocess meshes furniture/ --out furniture.zarr --voxels --views

    Args:
        source: folder of the meshes; the first folder of a file's path is its category.
        out: Zarr store to write.
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
    """Make a dataset of ShapeNetCore v1 or v2, or of the prepared files of the Occupancy Networks papers.

    Example: tessera preprocess shapenet ShapeNetCore.v2/ --out chairs.zarr --classes chair sofa

    Args:
        source: folder that holds the synsets (03001627, ...); splits come from their train.lst, val.lst and test.lst.
        out: Zarr store to write.
        classes: numbers or names of the synsets to use; all by default.
    """
    commands.preprocess_shapenet(source, out, classes, mesh, address)


@preprocess_app.command
def scannet(source: Source, *, out: Path, address: Address = "auto") -> None:
    """Make an evaluation dataset of ScanNet scenes: points in meters, upright by the scenes' axis alignment.

    Example: tessera preprocess scannet ScanNet/scans --out scannet.zarr

    Args:
        source: folder of scene folders with *_vh_clean.ply or *_vh_clean_2.ply, and of scannetv2_val.txt and so on.
        out: Zarr store to write.
    """
    commands.preprocess_scans("scannet", source, out, address)


@preprocess_app.command
def matterport(source: Source, *, out: Path, address: Address = "auto") -> None:
    """Make an evaluation dataset of Matterport3D regions or houses: points in meters.

    Example: tessera preprocess matterport v1/scans --out matterport.zarr

    Args:
        source: folder of one folder for each house, which holds region*.ply or the house's PLY.
        out: Zarr store to write.
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
    """Make a dataset of mesh sequences with fixed topology (D-FAUST), or of the prepared files of Occupancy Flow.

    Example: tessera preprocess humans dfaust/ --out humans.zarr --frames 17

    Args:
        source: folder of mesh folders, of .npz files with vertices (T, V, 3) and faces (F, 3), or of folders with
            pcl_seq and points_seq.
        out: Zarr store to write.
        frames: number of consecutive frames in a sequence; longer recordings are cut.
        views: also render images and depth of every time from 4 fixed cameras (meshes only).
        view_size: width and height of an image in pixels.
        up: axis that points up in the files; used by the views only.
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
        direct_gradients: differentiate the solver's own steps (oflow presets): many times faster on a CPU, with
            memory that grows with the number of steps; by default the adjoint equation, as published.
        seed: random seed of the initial weights and the batches.
        device: device that the network trains on.
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
    """How the files of the scan are read."""

    columns: str | None = None
    """names of a text file's or NumPy table's columns, such as x,y,z,,red,green,blue (an empty name skips one)."""
    unit: Literal["m", "cm", "mm", "ft", "us-ft"] = "m"
    """unit of the file's coordinates; the mesh is in meters."""
    up: Literal["x", "y", "z"] = "z"
    """axis that points up in the file; the mesh has z up."""
    use_vertices: bool = False
    """read the vertices of a mesh file as points."""
    keep_classes: tuple[int, ...] = ()
    """LAS classes to read, such as 2 6; all but the dropped ones by default."""
    drop_classes: tuple[int, ...] = (7, 18)
    """LAS classes to leave out; 7 and 18 are noise."""
    keep_withheld: bool = False
    """read the points that a LAS file marks as withheld."""
    returns: Literal["all", "first", "last"] = "all"
    """LAS returns to read."""
    station: tuple[str, ...] = ()
    """scanner positions X,Y,Z in the file's coordinates, for files that do not store them."""


@dataclass(frozen=True)
class WindowArguments:
    """How the scene is cut into crops; the defaults are the network's."""

    threshold: float | None = None
    """occupancy probability at the surface, between 0 and 1; lower values close more gaps and thicken walls."""
    cells_per_voxel: int = 2
    """lattice cells along each side of a voxel: 1, 2, 4 or 8."""
    scene_size: float | None = None
    """side in meters of the unit cube of imported weights, which fixes their voxel; by default the scan's longest."""
    query_voxels: int | None = None
    """side of the box evaluated in one crop, in voxels; a crop adds the network's receptive field around it."""
    blend_voxels: int = 4
    """half width in voxels of the band in which neighboring crops are blended; 0 for none, as in the original."""
    tiling: Literal["lattice", "box"] = "lattice"
    """origin of the tiles; box: the scan's lowest corner, with tiles of exactly QUERY_VOXELS, as in the original."""


@dataclass(frozen=True)
class SurfaceArguments:
    """Which parts of the surface are written."""

    surface: Literal["closed", "observed"] = "closed"
    """extent of the mesh: closed is watertight, observed leaves out faces that no scan point supports."""
    trim: float = 1.5
    """distance in voxels from every scan point beyond which a vertex counts as guessed."""
    keep_parts: bool = False
    """keep floating parts of less than 24 observed voxels."""
    fit_radius: float = 0.6
    """radius in voxels over which scan points are averaged to place the surface, at most 1; 0 for the network alone."""


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
        scans: files of the scan, or quoted patterns; together they are one scan.
        out: run directory: points by tile, finished tiles, manifest, report.json, mesh.ply; or a URL of one, such as
            s3://bucket/run, with --mesh.
        model: name of packaged weights (see `tessera models`) or safetensors file, of the preset volume, crop_1plane,
            crop_3plane, crop_combine or crop_room_grid64.
        voxel_size: side of a feature voxel in meters; by default from the spacing and the noise of the scan, with
            imported weights from the scene's size.
        mesh: file of the final mesh (PLY, OBJ, OFF, GLB or STL by its suffix); OUT/mesh.ply by default.
        drop_invalid: ignore points that are not finite instead of refusing the scan.
        device: device that the network runs on.
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
    """Compare a mesh with a reference: IoU, Chamfer-L1, accuracy, completeness, normal consistency, F-scores.

    Example: tessera evaluate runs/house/mesh.ply truth.ply --thresholds 0.01 0.05 --json metrics.json

    Args:
        mesh: mesh to evaluate.
        reference: mesh to compare with.
        thresholds: distances of further F-scores in the meshes' unit, beside that at 1% of the unit cube.
        samples: number of points drawn on each surface, and of queries for the IoU.
        seed: random seed of the samples.
        json: file to write the metrics to, in addition to the output.
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
        model: weights file made by `tessera train` or `tessera models import`.
        source: image; point cloud or mesh; voxel grid (binvox, NPY); folder of frames, or NPZ with their vertices.
        out: mesh to write (PLY, OBJ, OFF, GLB, STL); sequences become NAME_0000.ply ..., NAME.glb (animated), NAME.gif.
        device: device that the network runs on.
    """
    commands.generate(model, source, out, shape, device)


@models_app.command(name="list")
def list_models() -> None:
    """List the packaged weights, and the presets that can be trained or imported.

    Example: tessera models list
    """
    commands.list_models()


@models_app.command(name="import")
def import_model(
    file: Annotated[Positional[Path], arg(metavar="FILE.pt")], *, preset: str, out: Path
) -> None:
    """Convert a checkpoint (.pt) of ONet, ConvONet or Occupancy Flow to a weights file of Tessera.

    No code in the file is run.

    Example: tessera models import onet_img2mesh.pt --preset onet_img --out onet.safetensors

    Args:
        file: checkpoint, as the original's training or download script wrote it.
        preset: published configuration that it was trained with; `tessera models` lists them.
        out: safetensors file to write.
    """
    commands.import_model(file, preset, out)


MODELS_HELP = """List the packaged weights and the presets, or import a published checkpoint.

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

    For a scan it prints the columns used, the bounding box, the unit, stations, classes and warnings.

    Example: tessera info rooms.zarr --check

    Example: tessera info runs/site --check

    Example: tessera info survey.csv --columns id,x,y,z

    Args:
        path: file or folder to describe.
        check: verify every file of a dataset or a run directory against its checksum; exit code 1 if one differs.
    """
    commands.info(path, check, reading)


@app.command
def clean(path: Positional[Path], *, yes: bool = False) -> None:
    """List or remove what killed commands have left in a run directory, a dataset or a training folder.

    That is half-written files, intermediate results of a finished run, checkpoints that no run continues from, and
    the folders of private Rays whose command has ended. A folder in which another command is at work is refused.

    Example: tessera clean runs/house

    Example: tessera clean runs/house --yes

    Args:
        path: folder to clean.
        yes: remove the listed files and folders instead of listing them only.
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
