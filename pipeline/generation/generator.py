"""What every way of generating needs: the network, its inputs as it wants them, the surface of a field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convonet.registry import family_of
from convonet.surface.object_mesh import ExtractionConfig, Field, extract_mesh, field_normals
from pipeline.errors import PipelineError
from pipeline.generation.config import GenerateConfig
from pipeline.generation.inputs import Draw, Frame, ObjectInput, read_image, read_points, read_voxels
from pipeline.generation.results import Shape
from pipeline.generation.sequence_inputs import draw_tracks, read_images, read_sequence
from pipeline.generation.simplification import simplify

PADDING = 0.1


class Generator:
    """One network and what is asked of it.

    Attributes:
        network: on its device.
        family: its record.
        config: what is asked.
        kind: what the network takes.
        by_first: whether a sequence's unit cube is that of its first frame.
        notes: what the user should know, gathered on the way.
    """

    def __init__(self, network: nn.Module, header: dict[str, str], config: GenerateConfig) -> None:
        known: Any = network.config
        self.network, self.config = network, config
        self.network_config, self.family = known, family_of(known)
        self.kind = self.family.input(known)
        self.device = next(network.parameters()).device
        self.notes: list[str] = []
        is_original = "source_sha256" in header
        self.by_first = config.cube == "first" or (config.cube == "auto" and is_original)
        paper = self.family.sampling(known, header.get("preset", ""))
        assert paper is not None, "networks of scenes generate nothing"
        self.draw = Draw(config.points, config.noise, config.seed, paper)

    @property
    def has_latent(self) -> bool:
        """Whether shapes can be drawn."""
        return getattr(self.network_config, "latent_size", 0) > 0

    @property
    def moves(self) -> bool:
        """Whether it makes sequences."""
        return self.family.makes in ("flows", "moments")

    @property
    def threshold(self) -> float:
        """Occupancy at the surface: the one asked for, or else the paper's."""
        asked = self.config.threshold
        return self.family.threshold(self.network_config) if asked is None else asked

    def read(self, source: str) -> ObjectInput:
        """The input of a file, or of a shape's number.

        Raises:
            PipelineError, ScanError, MeshError, DatasetError: if it is not what the network takes, or damaged.
        """
        path = Path(source)
        match self.kind:
            case "image":
                read = ObjectInput(read_image(path)[None])
            case "images":
                read = read_images(path, self.network_config.frames)
            case "points" | "crops":
                read = read_points(path, self.draw)
            case "voxels":
                read = read_voxels(path, self.family.voxel_side)
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

    def extraction(self, padding: float = PADDING) -> ExtractionConfig:
        """How surfaces are extracted: in the unit cube and a little beyond it."""
        config = self.config
        return ExtractionConfig(config.resolution, config.steps, self.threshold, padding, config.refine)

    def extract(
        self, field: Field, frame: Frame, what: str = "", extraction: ExtractionConfig | None = None
    ) -> Shape:
        """The closed surface of a field in world coordinates.

        Args:
            field: logits in the unit cube.
            frame: where this cube lies.
            what: which of several shapes it is, for messages.
            extraction: as `self.extraction()` makes it.

        Raises:
            PipelineError: if nothing, or everything, is inside.
        """
        watched, extraction = _Watched(field), extraction or self.extraction()
        mesh = extract_mesh(watched, extraction, self.device)
        where = f"{what}: " if what else ""
        if not len(mesh.faces):
            raise PipelineError(
                f"{where}the network finds nothing inside at the threshold {self.threshold:g}: the occupancy is at "
                f"most {watched.highest:.3g}; pass a lower --threshold, or an input like those it was trained on"
            )
        if watched.lowest > self.threshold:
            raise PipelineError(
                f"{where}everything is inside at the threshold {self.threshold:g}: the occupancy is at least "
                f"{watched.lowest:.3g}; pass a higher --threshold, or an input like those it was trained on"
            )
        vertices, faces, normals = mesh.vertices, mesh.faces, mesh.normals
        if self.config.faces is not None:
            vertices, faces = simplify(vertices, faces, self.config.faces)
            normals = field_normals(vertices, faces, field, extraction, self.device)
        return Shape(self.placed(vertices, frame), faces, normals)

    def placed(self, points: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
        """Positions of the unit cube as the user wants them: in the input's coordinates, or left as they are."""
        return points if self.config.unit_cube else frame.to_world(points)


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
