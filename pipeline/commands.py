"""What each command does: call the stage, print its summary. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.cli import MeshArguments, ReadingArguments, SurfaceArguments, WindowArguments
    from pipeline.generation.config import GenerateConfig
    from pipeline.isolation import CallLimits
    from preprocessing.scan_files import ScanOptions
    from preprocessing.sources import Collection, MeshOptions


@dataclass(frozen=True)
class TrainOptions:
    """The command line's share of a training configuration."""

    preset: str
    steps: int
    batch_size: int | None
    learning_rate: float | None
    workers: int
    checkpoint_every: int
    max_failures: int
    initial_model: str | None
    imagenet: Path | None
    direct_gradients: bool
    seed: int


def preprocess_rooms(out: Path, rooms: int, building_windows: int, seed: int, address: str) -> None:
    """`tessera preprocess rooms`."""
    from preprocessing.sources import RoomsConfig, rooms_collection

    _preprocess(rooms_collection(RoomsConfig(rooms, building_windows, seed)), out, address)


def preprocess_bodies(
    out: Path, sequences: int, frames: int, seed: int, view_size: int, address: str
) -> None:
    """`tessera preprocess bodies`."""
    from preprocessing.sources import BodiesConfig, bodies_collection

    _preprocess(bodies_collection(BodiesConfig(sequences, frames, seed, view_size)), out, address)


def preprocess_meshes(source: Path, out: Path, arguments: MeshArguments, address: str) -> None:
    """`tessera preprocess meshes`."""
    from preprocessing.sources import meshes_collection

    _refuse_same(source, out)
    collection = meshes_collection(source, _mesh_options(arguments))
    _preprocess(collection, out, address, _limits(arguments))


def preprocess_shapenet(
    source: Path, out: Path, classes: tuple[str, ...], arguments: MeshArguments, address: str
) -> None:
    """`tessera preprocess shapenet`."""
    from preprocessing.sources import shapenet_collection

    _refuse_same(source, out)
    collection = shapenet_collection(source, _mesh_options(arguments), classes)
    _preprocess(collection, out, address, _limits(arguments))


def preprocess_scans(kind: str, source: Path, out: Path, address: str) -> None:
    """`tessera preprocess scannet` and `tessera preprocess matterport`."""
    from preprocessing.sources import matterport_collection, scannet_collection

    _refuse_same(source, out)
    make = {"scannet": scannet_collection, "matterport": matterport_collection}[kind]
    _preprocess(make(source), out, address)


def preprocess_humans(
    source: Path, out: Path, frames: int, view_size: int, up: Literal["y", "z"], address: str
) -> None:
    """`tessera preprocess humans`."""
    from preprocessing.sources import humans_collection

    _refuse_same(source, out)
    _preprocess(humans_collection(source, frames, view_size, up), out, address)


def _refuse_same(source: Path, out: Path) -> None:
    from pipeline.overwriting import refuse_overwriting

    refuse_overwriting([out], [source])


def _mesh_options(arguments: MeshArguments) -> MeshOptions:
    from preprocessing.sources import MeshOptions
    from preprocessing.watertight import VisibilityConfig, WatertightConfig

    watertight = WatertightConfig(
        arguments.method,
        VisibilityConfig(arguments.resolution),
        arguments.largest_chamfer,
        arguments.largest_hausdorff,
    )
    return MeshOptions(
        watertight,
        voxel_side=32 if arguments.voxels else 0,
        view_size=arguments.view_size if arguments.views else 0,
        up=arguments.up,
    )


def _limits(arguments: MeshArguments) -> CallLimits:
    from pipeline.isolation import CallLimits

    return CallLimits(arguments.timeout_s, round(arguments.memory_gib * 2**30))


def _preprocess(collection: Collection, out: Path, address: str, limits: CallLimits | None = None) -> None:
    from pipeline.preparation import preprocess
    from preprocessing.errors import DatasetError

    summary = preprocess(collection, out, address, limits)
    print(
        f"{out}: {summary.shapes - len(summary.rejected)} of {summary.shapes} shapes "
        f"({summary.shards_made} shards made, {summary.shards_kept} kept), {len(summary.rejected)} rejected"
    )
    for entry in summary.rejected:
        print(f"  rejected {entry.name}: {entry.reason}")
    if len(summary.rejected) == summary.shapes:
        raise DatasetError(f"{out}: no shape could be used; see the reasons above")


def train(data: Path, out: Path, options: TrainOptions, device: str, address: str) -> None:
    """`tessera train`."""
    from pipeline.training import train as run
    from pipeline.training_presets import preset_config, preset_training

    training = replace(
        preset_training(options.preset, options.batch_size, options.learning_rate),
        steps=options.steps,
        seed=options.seed,
    )
    config = replace(
        preset_config(options.preset, data, training, options.direct_gradients),
        workers=options.workers,
        checkpoint_every=options.checkpoint_every,
        max_failures=options.max_failures,
        initial_model=options.initial_model,
        imagenet=None if options.imagenet is None else str(options.imagenet),
    )
    summary = run(data, out, config, device, address)
    reached = (
        f"validation distance {summary.validation_distance:.4f}"
        if summary.validation_iou is None
        else f"validation IoU {summary.validation_iou:.3f}"
    )
    print(f"{summary.model}: {summary.steps} steps, {reached}, {summary.seconds:.0f} s")


def _scan_options(arguments: ReadingArguments) -> ScanOptions:
    from preprocessing.scan_files import ScanOptions

    stations = [tuple(float(word) for word in place.split(",")) for place in arguments.station]
    return ScanOptions(
        columns=tuple(name.strip() for name in arguments.columns.split(",")) if arguments.columns else (),
        unit=arguments.unit,
        up=arguments.up,
        use_vertices=arguments.use_vertices,
        keep_classes=arguments.keep_classes,
        drop_classes=arguments.drop_classes,
        keep_withheld=arguments.keep_withheld,
        returns=arguments.returns,
        stations=tuple(stations),  # type: ignore[arg-type] # their length is checked there
    )


def reconstruct(
    scans: tuple[Path, ...],
    out: Path,
    model: str,
    voxel_size: float | None,
    mesh: Path | None,
    drop_invalid: bool,
    reading: ReadingArguments,
    window: WindowArguments,
    surface: SurfaceArguments,
    device: str,
    address: str,
) -> None:
    """`tessera reconstruct`."""
    from convonet.weights import load_network
    from pipeline.reconstruction import ReconstructConfig
    from pipeline.reconstruction import reconstruct as run
    from pipeline.reconstruction.spacing import Granularity

    config = ReconstructConfig(
        model=model,
        voxel_size=voxel_size,
        drop_invalid=drop_invalid,
        reading=_scan_options(reading),
        fit_radius=surface.fit_radius,
        trim=surface.trim,
        **asdict(window),
    )
    report = run(
        scans,
        out,
        config,
        mesh,
        device,
        address,
        surface=surface.surface,
        keep_parts=surface.keep_parts,
    )
    side = load_network(model).voxel_side
    rule = "by the spacing and noise of the scan" if side is None else f"{side:g} of the scene's size"
    chosen = "" if voxel_size else f", {rule}"
    print(f"{report.mesh}: {report.vertices:,} vertices, {report.faces:,} faces")
    open_border = f" (its border has {report.open_edges:,} edges)" if surface.surface == "observed" else ""
    print(f"watertight: {'yes' if report.is_watertight else 'NO'}{open_border}")
    print(f"parts: {report.parts:,}; {report.removed_parts:,} floating parts left out as too small")
    print(f"area: {report.observed_area:,.4g} m2 observed, {report.guessed_area:,.4g} m2 guessed")
    print(f"scan: {Granularity(report.point_spacing, report.noise)}")
    print(f"voxel size: {report.voxel_size:.4g} m{chosen}; surface lattice {report.spacing:.4g} m")
    print(f"covers {report.coverage:.0%} of the scan's points")
    for note in report.notes:
        print(f"note: {note}")
    print(f"tiles: {report.tiles_computed} computed, {report.tiles_kept} kept from an earlier run")
    print("time: " + ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items()))
    print(f"peak memory: {report.peak_memory_bytes / 2**30:.2f} GiB")


def demo(out: Path, seed: int, device: str, address: str) -> None:
    """`tessera demo`."""
    from pipeline.demo import demo as run

    report = run(out, seed, device, address)
    size = " x ".join(f"{side:.1f}" for side in report.building_size_m)
    made = report.reconstruction
    print(f"building of {size} m, {report.scan_points:,} scan points, {made.faces:,} faces")
    print(f"watertight: {'yes' if made.is_watertight else 'NO'}")
    print(report.metrics.table())
    print("time: " + ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items()))
    print(f"peak memory: {report.peak_memory_bytes / 2**30:.2f} GiB")
    print(f"look at {out / 'preview.png'} and {out / 'mesh.ply'}")


def evaluate(
    mesh: Path, reference: Path, thresholds: tuple[float, ...], samples: int, seed: int, target: Path | None
) -> None:
    """`tessera evaluate`."""
    from common.atomic_file import appearing
    from pipeline.evaluation import evaluate as run
    from pipeline.overwriting import refuse_overwriting

    refuse_overwriting([target], [mesh, reference])
    metrics = run(mesh, reference, thresholds, samples, seed)
    print(metrics.table())
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with appearing(target) as partial:
            partial.write_text(json.dumps(asdict(metrics), indent=1))


def generate(model: str, source: str | None, out: Path, config: GenerateConfig, device: str) -> None:
    """`tessera generate`."""
    from pipeline.generation.run import generate as run

    report = run(model, source, out=out, config=config, device=device)
    shapes = "" if report.shapes == 1 else f"{report.shapes} shapes, "
    print(f"{out}: {shapes}{report.vertices:,} vertices, {report.faces:,} faces")
    print(f"watertight: {'yes' if report.is_watertight else 'NO'}")
    for note in report.notes:
        print(f"note: {note}")
    shown, rest = report.files[:6], len(report.files) - 6
    files = [*shown, *report.files[max(6, len(report.files) - 2) :]]
    print("files: " + ", ".join(path.name for path in files) + (f" ({rest + 6} in all)" if rest > 2 else ""))
    print(f"time: {report.seconds:.1f} s")


def list_models() -> None:
    """`tessera models` and `tessera models list`."""
    from convonet.weights import (
        DEFAULT_MODEL,
        KIND_KEY,
        load_any_network,
        model_file,
        packaged_models,
        read_header,
    )

    print("presets, to train or to import weights for:")
    for row in _preset_rows():
        print(f"  {row[0]:<30} {row[1]:<10} {row[2]:>12}  {row[3]}")
    print("\nweights that ship with Tessera:")
    for name in packaged_models():
        network, header, path = load_any_network(name), read_header(name), model_file(name)
        parameters = sum(value.numel() for value in network.state_dict().values())
        mark = " (default)" if name == DEFAULT_MODEL else ""
        reach = getattr(network, "receptive_radius", None)
        print(
            f"{name}{mark}: {parameters:,} parameters, {header[KIND_KEY]} network, "
            f"{path.stat().st_size / 2**20:.1f} MiB, trained {header.get('steps', '?')} steps"
            + ("" if reach is None else f", receptive radius {reach} voxels")
        )
        if path.with_suffix(".md").is_file():
            print(f"  card: {path.with_suffix('.md')}")


def _preset_rows() -> list[tuple[str, str, str, str]]:
    """Name, family, parameters and input of every preset."""
    import torch

    from convonet.registry import family_of, parameter_count, presets
    from pipeline.generation.input_kinds import INPUT_WORDS

    rows = [("preset", "family", "parameters", "input")]
    for name, config in presets().items():
        with torch.device("meta"):
            count = parameter_count(config.build())
        rows.append((name, config.kind, f"{count:,}", INPUT_WORDS[family_of(config).input(config)][0]))
    return rows


def import_model(file: Path, preset: str, out: Path) -> None:
    """`tessera models import`."""
    from convonet.checkpoints import import_original
    from convonet.registry import parameter_count
    from pipeline.overwriting import refuse_overwriting
    from pipeline.version import software_version

    refuse_overwriting([out], [file])
    imported = import_original(file, preset, out, {"software": f"tessera {software_version()}"})
    print(f"{out}: {preset}, {parameter_count(imported.network):,} parameters, from {file}")
    for other, distinction in imported.also_fits.items():
        print(f"note: also fits {other} ({distinction})")
    if imported.also_fits:
        print("note: the file does not say which it is; import it with the preset it was trained with")


def info(path: Path | None, check: bool, reading: ReadingArguments) -> None:
    """`tessera info`."""
    from pipeline import description

    if path is None:
        print("\n".join(description.describe_installation()))
        return
    print("\n".join(description.describe(path, _scan_options(reading))))
    if check:
        print(f"  {description.check(path)}")


def clean(path: Path, yes: bool) -> None:
    """`tessera clean`."""
    from pipeline.litter import clean as run

    found = run(path, yes)
    for litter in found:
        print(f"{litter.size_bytes / 1e6:10,.1f} MB  {litter.path} ({litter.what})")
    total = f"{sum(litter.size_bytes for litter in found) / 1e6:,.1f} MB in {len(found)} places"
    if not found:
        print(f"{path}: nothing to remove")
    elif yes:
        print(f"{path}: {total} removed")
    else:
        print(f"{path}: {total} would be freed; pass --yes to remove them")
