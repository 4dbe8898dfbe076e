"""Single objects from trained networks: from an image, points, voxels or a sequence, or out of nothing.

Mescheder et al. 2019 (ONet), Peng et al. 2020 (ConvONet), Niemeyer et al. 2019 (Occupancy Flow).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convonet.conv_onet import ConvOnet
from convonet.conv_onet.presets import OCCUPANCY_THRESHOLD
from convonet.object_mesh import ExtractionConfig, Field, extract_mesh
from convonet.oflow import FlowCodes, OccupancyFlow, OccupancyNetwork4D
from convonet.oflow.motion import interpolate_keyframes, interpolate_shapes, latent_path
from convonet.onet import OccupancyNetwork
from convonet.onet.latent_encoder import interpolate_latents
from convonet.precision import choose_device
from convonet.weights import KIND_KEY, load_any_network, model_file, read_header
from pipeline.errors import PipelineError
from pipeline.generation_inputs import (
    UNIT_FRAME,
    VOXEL_SIDE,
    WANTED,
    Draw,
    Frame,
    InputKind,
    ObjectInput,
    correspond,
    draw_tracks,
    holds_triangles,
    input_kind,
    paper_sampling,
    read_cloud,
    read_image,
    read_images,
    read_points,
    read_sequence,
    read_voxels,
)
from pipeline.generation_results import (
    MovingShape,
    Shape,
    Up,
    check_target,
    numbered,
    write_moving,
    write_series,
    write_still,
)
from pipeline.mesh_simplification import simplify
from preprocessing.mesh_checks import check_mesh
from preprocessing.mesh_files import read_mesh
from preprocessing.surface_sampling import sample_surface

FLOW_THRESHOLD = 0.3
PADDING = 0.1
PADDING_4D = 0.5  # bodies leave the cube of their first frame, and nothing carries them there
INTERPOLATED = 10
PAIRS_AT_ONCE = 1 << 25  # of queries and points, where a decoder compares all with all


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate, beside the input.

    Attributes:
        points: points that the network is shown; None: as many as in its paper.
        noise: standard deviation added to them, in unit cubes; None: the paper's for points sampled on a mesh,
            none for measured points.
        seed: of sampled points and of drawn latents.
        samples: shapes to draw from a network with a latent; sample i has the seed `seed + i`.
        interpolate: the two ends of an interpolation: seeds, or files where the network takes two.
        frames: moments of a sequence, or shapes of an interpolation; None: as many as the network was trained
            with, or 10.
        threshold: occupancy at the surface; None: the paper's.
        resolution: cells of the coarsest lattice along each side.
        steps: how often cells at the surface are halved.
        refine: steps of gradient descent that move vertices onto the surface.
        faces: simplify each shape to so many.
        unit_cube: leave results in the network's unit cube instead of the input's coordinates.
        cube: of a sequence: that of its "first" frame, as in the paper, or of the "whole" sequence, as
            `tessera preprocess` prepares it; "auto" takes the first for imported weights.
        up: the axis that points up in pictures.
    """

    points: int | None = None
    noise: float | None = None
    seed: int = 0
    samples: int | None = None
    interpolate: tuple[str, str] | None = None
    frames: int | None = None
    threshold: float | None = None
    resolution: int = 32
    steps: int = 2
    refine: int = 0
    faces: int | None = None
    unit_cube: bool = False
    cube: Literal["auto", "first", "whole"] = "auto"
    up: Up = "z"

    def __post_init__(self) -> None:
        for name, least in (("points", 1), ("samples", 1), ("frames", 2), ("faces", 4)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}, not {value}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, not {self.seed}")
        if self.noise is not None and not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"--noise must not be negative, not {self.noise}")


@dataclass(frozen=True)
class GenerateReport:
    """What was made.

    Attributes:
        files: in the order they were written.
        shapes: meshes, of which those of a sequence count once.
        vertices, faces: of all these together.
        is_watertight: whether every one is.
        notes: what the user should know.
        seconds: from reading the weights to the last file.
    """

    files: tuple[Path, ...]
    shapes: int
    vertices: int
    faces: int
    is_watertight: bool
    notes: tuple[str, ...]
    seconds: float


def generate(
    model: str | Path,
    source: str | Path | None = None,
    *,
    out: str | Path,
    config: GenerateConfig | None = None,
    device: str = "auto",
) -> GenerateReport:
    """Generate closed meshes of objects with a network of kind conv_onet, onet, oflow or onet4d.

    Args:
        model: a weights file, or a packaged model's name.
        source: what the network takes: an image, a point cloud or mesh, a voxel grid, a sequence; None for a
            network that takes nothing, and for interpolations.
        out: the mesh, by its suffix; its picture has the same name. A sequence is written as numbered meshes
            `NAME_0000.ply` and so on, an animated `NAME.glb` and `NAME.gif`.
        config: options.
        device: where the network runs.

    Raises:
        PipelineError: if the input is not what the network takes, an option does not go with it, or it finds
            nothing.
        WeightsError, ScanError, MeshError, DatasetError: if a file cannot be used.
    """
    started = time.monotonic()
    config, out = config or GenerateConfig(), Path(out)
    check_target(out)
    header = read_header(str(model))
    if header[KIND_KEY] == "volume":
        raise PipelineError(
            f"{model_file(str(model))}: is a volume network, which turns whole scans into meshes; "
            "use `tessera reconstruct SCAN --out RUN --model MODEL`"
        )
    network = load_any_network(str(model)).to(choose_device(device))
    generator = _Generator(network, header, config)
    with torch.no_grad():
        results = generator.run(None if source is None else str(source))
    if isinstance(results, _Series):
        files = write_series(out, results.shapes, config.up)
        shapes = list(results.shapes)
    elif isinstance(results[0], MovingShape):
        files, shapes = [], []
        for path, moving in zip(numbered(out, len(results)), results, strict=True):
            assert isinstance(moving, MovingShape)
            files += write_moving(path, moving, config.up)
            shapes.append(moving.first)
    else:
        files, shapes = [], []
        for path, still in zip(numbered(out, len(results)), results, strict=True):
            assert isinstance(still, Shape)
            files += write_still(path, still, config.up)
            shapes.append(still)
    return GenerateReport(
        tuple(files),
        len(shapes),
        sum(len(shape.vertices) for shape in shapes),
        sum(len(shape.triangles) for shape in shapes),
        all(check_mesh(shape.vertices, shape.triangles).is_watertight for shape in shapes),
        tuple(generator.notes),
        time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Series:
    """Shapes that follow one another without corresponding."""

    shapes: list[Shape]


Results = list[Shape] | list[MovingShape] | _Series


class _Generator:
    """One run of one network."""

    def __init__(self, network: nn.Module, header: dict[str, str], config: GenerateConfig) -> None:
        self.network, self.config = network, config
        known: Any = network.config
        self.network_config = known
        self.kind: InputKind = input_kind(known)
        self.device = next(network.parameters()).device
        self.notes: list[str] = []
        is_original = "source_sha256" in header
        self.by_first = config.cube == "first" or (config.cube == "auto" and is_original)
        paper = paper_sampling(known, header.get("preset", ""))
        self.draw = Draw(config.points, config.noise, config.seed, paper)

    def run(self, source: str | None) -> Results:
        self._check_options(source)
        match self.network:
            case OccupancyFlow():
                if self.kind == "pair":
                    return [self._between(self.network, source)]
                return self._flows(self.network, source)
            case OccupancyNetwork4D():
                return self._each_moment(self.network, source)
            case ConvOnet():
                return self._from_features(self.network, source)
            case OccupancyNetwork():
                return self._from_latents(self.network, source)
        raise PipelineError(f"a network of type {type(self.network).__name__} does not generate objects")

    @property
    def has_latent(self) -> bool:
        return getattr(self.network_config, "latent_size", 0) > 0

    @property
    def moves(self) -> bool:
        return isinstance(self.network, OccupancyFlow | OccupancyNetwork4D)

    def _check_options(self, source: str | None) -> None:
        config, wanted = self.config, WANTED[self.kind]
        is_pair, takes_sequence = self.kind == "pair", self.has_latent and self.moves
        if self.kind == "crops":
            raise PipelineError(
                "a network of crops needs a scene cut into crops, which generate does not do; use a network "
                "of whole rooms, or `tessera reconstruct` with a volume network"
            )
        if config.interpolate and not (self.has_latent or is_pair):
            raise PipelineError(
                f"this network has no latent to interpolate; pass its input, which is {wanted}"
            )
        if config.interpolate and (source is not None or config.samples):
            raise PipelineError("--interpolate A B stands alone: neither INPUT nor --samples goes with it")
        if config.samples and not self.has_latent:
            raise PipelineError(f"this network draws no samples; pass its input, which is {wanted}")
        if config.samples and source is not None and takes_sequence:
            raise PipelineError(
                "pass INPUT to reconstruct a sequence, or --samples to draw new ones, not both"
            )
        if source is None and self.kind != "nothing" and not config.interpolate:
            raise PipelineError(f"this network needs an INPUT: {wanted}")
        if source is not None and self.kind == "nothing" and not takes_sequence:
            more = "; --samples N --seed S draw shapes" if self.has_latent else ""
            raise PipelineError(f"{source}: this network takes no input{more}")
        if config.frames and not (self.moves or config.interpolate):
            raise PipelineError(
                "--frames is for sequences and interpolations; this network makes single shapes"
            )
        if is_pair and (config.threshold is not None or config.refine or config.faces is not None):
            raise PipelineError(
                "this network moves the mesh that it is given: --threshold, --refine and --faces do not apply"
            )

    # Still shapes

    def _from_features(self, network: ConvOnet, source: str | None) -> list[Shape]:
        read = self._read(source)
        features = network.encode(read.values.to(self.device))
        at_once = ExtractionConfig.queries_per_batch
        if network.config.family == "pointconv":
            at_once = max(1, PAIRS_AT_ONCE // read.values.shape[1])
        return [self._extract(lambda q: network.decode(features, q[None])[0], read.frame, at_once=at_once)]

    def _from_latents(self, network: OccupancyNetwork, source: str | None) -> Results:
        config = self.config
        read = ObjectInput(torch.zeros(1, 0)) if self.kind == "nothing" else self._read(source)
        features = network.encode(read.values.to(self.device))
        latents: list[Tensor | None] = [None]
        if config.interpolate:
            first, last = (network.sample_latent(1, _seed(end))[0] for end in config.interpolate)
            latents = list(interpolate_latents(first, last, config.frames or INTERPOLATED)[:, None])
        elif self.has_latent and (config.samples or self.kind == "nothing"):
            latents = [network.sample_latent(1, config.seed + i) for i in range(config.samples or 1)]
        shapes = []
        for number, latent in enumerate(latents):

            def field(queries: Tensor, latent: Tensor | None = latent) -> Tensor:
                return network.decode(features, queries[None], latent)[0]

            what = f"shape {number}" if len(latents) > 1 else ""
            shapes.append(self._extract(field, read.frame, what))
        if config.interpolate:
            self.notes.append("the shapes differ in topology, so there is no animated GLB")
            return _Series(shapes)
        return shapes

    # Sequences

    def _flows(self, network: OccupancyFlow, source: str | None) -> list[MovingShape]:
        config = self.config
        frame, codes = self._flow_codes(network, source)
        count = network.config.frames if config.interpolate else (config.frames or network.config.frames)
        times = torch.linspace(0, 1, count, device=self.device)
        moving = []
        for number, code in enumerate(codes):

            def field(queries: Tensor, code: FlowCodes = code) -> Tensor:
                return network.decode(code, queries[None])[0]

            what = f"sequence {number}" if len(codes) > 1 else ""
            shape = self._extract(field, UNIT_FRAME, what)
            start = torch.from_numpy(shape.vertices.astype(np.float32)).to(self.device)
            path = network.transport(code, start[None], times)[0].cpu().numpy().astype(np.float64)
            moving.append(MovingShape(self._placed(path, frame), shape.triangles))
        return moving

    def _flow_codes(self, network: OccupancyFlow, source: str | None) -> tuple[Frame, list[FlowCodes]]:
        """The cube of the input, and the codes of each sequence to make."""
        config = self.config
        if self.kind != "nothing" or source is not None:
            read = self._read(source)
            return read.frame, [network.encode(read.values.to(self.device))]
        if not self.has_latent:
            return UNIT_FRAME, [network.encode(torch.zeros(1, 1, 0, device=self.device))]
        if config.interpolate is None:
            seeds = range(config.seed, config.seed + (config.samples or 1))
            return UNIT_FRAME, [self._drawn_codes(network, seed) for seed in seeds]
        first, last = (self._end_codes(network, end) for end in config.interpolate)
        count = config.frames or INTERPOLATED
        shapes, motions = (latent_path(first, last, count, vary) for vary in ("shape", "motion"))
        return UNIT_FRAME, [shape.moving_like(motion) for shape, motion in zip(shapes, motions, strict=True)]

    def _end_codes(self, network: OccupancyFlow, end: str) -> FlowCodes:
        """Codes of one end of an interpolation: a seed's, or a sequence's."""
        if end.isdecimal() and not Path(end).exists():
            return self._drawn_codes(network, int(end))
        return network.encode(self._read_tracks(Path(end)).values.to(self.device))

    def _drawn_codes(self, network: OccupancyFlow, seed: int) -> FlowCodes:
        """Codes drawn from the prior: the same for a seed on every device."""
        codes = network.encode_with_prior(torch.zeros(1, 1, 0, device=self.device), sample=False)
        generator = torch.Generator().manual_seed(seed)
        shape, motion = (torch.randn(codes.shape.shape, generator=generator) for _ in range(2))
        return replace(codes, shape=shape.to(self.device), motion=motion.to(self.device))

    def _each_moment(self, network: OccupancyNetwork4D, source: str | None) -> _Series:
        read = self._read(source)
        code = network.encode(read.values.to(self.device))
        shapes = []
        for moment in torch.linspace(0, 1, self.config.frames or network.config.frames).tolist():

            def field(queries: Tensor, moment: float = moment) -> Tensor:
                return network.decode(code, queries[None], queries.new_full((1,), moment))[0]

            shapes.append(self._extract(field, read.frame, f"time {moment:.2f}", PADDING_4D))
        self.notes.append("this network has no correspondences over time, so there is no animated GLB")
        return _Series(shapes)

    def _between(self, network: OccupancyFlow, source: str | None) -> MovingShape:
        """Given meshes carried into one another."""
        config = self.config
        frames = config.frames or network.config.frames
        if config.interpolate is None:
            assert source is not None
            path = Path(source)
            moving = read_sequence(path)
            if moving.triangles is None:
                raise PipelineError(f"{path}: holds point clouds; this network moves meshes of one topology")
            frame = Frame.around(path, moving.vertices[0] if self.by_first else moving.vertices)
            unit = frame.to_unit(moving.vertices)
            clouds = [self._cloud_on(vertices, moving.triangles) for vertices in unit]
            keys = torch.from_numpy(unit.astype(np.float32)).to(self.device)
            walked = interpolate_keyframes(network, torch.stack(clouds), keys, frames - 1)
            positions = self._placed(walked.cpu().numpy().astype(np.float64), frame)
            positions[:: frames - 1] = self._placed(unit, frame)  # exactly, beyond single precision
            return MovingShape(positions, moving.triangles)
        start, end = (Path(name) for name in config.interpolate)
        first = read_mesh(start)
        last = read_mesh(end) if holds_triangles(end) else None
        ends = last.vertices if last is not None else read_cloud(end)
        both = np.concatenate([first.vertices, ends])
        frame = Frame.around(start, first.vertices if self.by_first else both)
        begun, ended = frame.to_unit(first.vertices), frame.to_unit(ends)
        seen = [self._cloud_on(begun, first.triangles)]
        seen.append(self._cloud_on(ended, None if last is None else last.triangles))
        if len(seen[1]) != len(seen[0]):
            raise PipelineError(
                f"{end}: has {len(ends):,} points, fewer than the {len(seen[0]):,} that the network is shown; "
                f"pass --points {len(ends)}"
            )
        codes = network.encode(torch.stack(seen)[None])
        times = torch.linspace(0, 1, frames, device=self.device)
        points = torch.from_numpy(begun.astype(np.float32)).to(self.device)[None]
        if last is not None and correspond(first, last):
            targets = torch.from_numpy(ended.astype(np.float32)).to(self.device)[None]
            walked = interpolate_shapes(network, codes, points, targets, times)[0]
        else:
            walked = network.transport(codes, points, times)[0]
            self.notes.append(
                f"{end.name} has other faces than {start.name}, which is carried towards it alone"
            )
        positions = self._placed(walked.cpu().numpy().astype(np.float64), frame)
        positions[0] = self._placed(begun, frame)
        if last is not None and correspond(first, last):
            positions[-1] = self._placed(ended, frame)
        return MovingShape(positions, first.triangles)

    def _cloud_on(self, vertices: NDArray[np.float64], triangles: NDArray[np.int64] | None) -> Tensor:
        """(N, 3) points of a mesh or of a cloud, as the network is shown them."""
        rng = self.draw.rng()
        if triangles is None:
            points = vertices[rng.permutation(len(vertices))[: self.draw.count]]
        else:
            points, _ = sample_surface(vertices, triangles, self.draw.count, rng)
        points = points + self.draw.noise_of(triangles is not None) * rng.standard_normal(points.shape)
        return torch.from_numpy(points.astype(np.float32)).to(self.device)

    # Input and surface

    def _read(self, source: str | None) -> ObjectInput:
        assert source is not None, "options were checked"
        path = Path(source)
        match self.kind:
            case "image":
                read = ObjectInput(read_image(path)[None])
            case "images":
                read = read_images(path, self.network_config.frames)
            case "points":
                read = read_points(path, self.draw)
            case "voxels":
                takes_any = isinstance(self.network, ConvOnet)
                read = read_voxels(path, None if takes_any else VOXEL_SIDE)
            case "shape":
                read = self._shape_number(source)
            case _:
                read = self._read_tracks(path)
        self.notes += read.notes
        return read

    def _read_tracks(self, path: Path) -> ObjectInput:
        if not path.exists():
            raise PipelineError(f"{path}: no such file or folder")
        moving = read_sequence(path)
        return draw_tracks(path, moving, self.network_config.frames, self.draw, self.by_first)

    def _shape_number(self, source: str) -> ObjectInput:
        count = self.network_config.shape_count
        if not source.isdecimal() or int(source) >= count:
            raise PipelineError(
                f"{source}: this network knows the shapes of its training by number, 0 to {count - 1}"
            )
        return ObjectInput(torch.tensor([int(source)]))

    def _extract(
        self,
        field: Field,
        frame: Frame,
        what: str = "",
        padding: float = PADDING,
        at_once: int = ExtractionConfig.queries_per_batch,
    ) -> Shape:
        """The closed surface of a field in world coordinates.

        Raises:
            PipelineError: if nothing, or everything, is inside.
        """
        config = self.config
        threshold = self._threshold() if config.threshold is None else config.threshold
        watched = _Watched(field)
        extraction = ExtractionConfig(
            config.resolution, config.steps, threshold, padding, config.refine, at_once
        )
        mesh = extract_mesh(watched, extraction, self.device)
        where = f"{what}: " if what else ""
        if not len(mesh.triangles):
            raise PipelineError(
                f"{where}the network finds nothing inside at the threshold {threshold:g}: the occupancy is at "
                f"most {watched.highest:.3g}; pass a lower --threshold, or an input like those it was trained on"
            )
        if watched.lowest > threshold:
            raise PipelineError(
                f"{where}everything is inside at the threshold {threshold:g}: the occupancy is at least "
                f"{watched.lowest:.3g}; pass a higher --threshold, or an input like those it was trained on"
            )
        vertices, triangles = mesh.vertices, mesh.triangles
        if config.faces is not None:
            vertices, triangles = simplify(vertices, triangles, config.faces)
        return Shape(self._placed(vertices, frame), triangles)

    def _threshold(self) -> float:
        if isinstance(self.network, OccupancyNetwork):
            return self.network.config.threshold
        return FLOW_THRESHOLD if self.moves else OCCUPANCY_THRESHOLD

    def _placed(self, points: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
        return points if self.config.unit_cube else frame.to_world(points)


def _seed(end: str) -> int:
    """One end of an interpolation of latents."""
    if not end.isdecimal():
        raise PipelineError(
            f"{end}: this network draws shapes from seeds; pass two whole numbers to --interpolate"
        )
    return int(end)


class _Watched:
    """A field that remembers the least and greatest occupancy that it gave."""

    def __init__(self, field: Callable[[Tensor], Tensor]) -> None:
        self._field = field
        self.lowest, self.highest = 1.0, 0.0

    def __call__(self, queries: Tensor) -> Tensor:
        logits = self._field(queries)
        if logits.numel():
            low, high = torch.sigmoid(torch.stack(torch.aminmax(logits.detach()))).tolist()
            self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        return logits
