"""`tessera generate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.commands.options import Device
from pipeline.generation.config import GenerateConfig

FILES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Make meshes of single objects, still or moving, from an image, points, voxels, a sequence, or nothing.

    Example: tessera generate onet.safetensors chair.png --out chair.ply

    Example: tessera generate points.safetensors scan.ply --out object.glb --faces 5000

    Example: tessera generate cars.safetensors --samples 4 --seed 7 --out car.ply

    Example: tessera generate cars.safetensors --interpolate 7 8 --frames 16 --out walk.ply

    Example: tessera generate flow.safetensors dancer/ --out dancer.ply

    Example: tessera generate flow.safetensors dancer/ --motion jumper/ --out jumping_dancer.ply

    Attributes:
        model: weights file made by `tessera train` or `tessera models import`.
        source: image ({images}); point cloud (as `tessera reconstruct` reads them) or mesh ({meshes}); voxel grid
            (binvox, NPY); folder of frames, or NPZ with their vertices.
        out: mesh to write ({meshes}); sequences become NAME_0000.ply ..., NAME.glb (animated), NAME.gif.
        device: device that the network runs on.
    """

    model: str = field(metadata={"place": "MODEL"})
    source: str | None = field(default=None, metadata={"place": "INPUT"})
    out: Path
    device: Device = "auto"
    shape: GenerateConfig = field(default_factory=GenerateConfig)

    def run(self) -> None:
        """Make the meshes, and print their files."""
        from pipeline.generation.run import generate

        report = generate(self.model, self.source, out=self.out, config=self.shape, device=self.device)
        shapes = "" if report.shapes == 1 else f"{report.shapes} shapes, "
        print(f"{self.out}: {shapes}{report.vertices:,} vertices, {report.faces:,} faces")
        print(f"watertight: {'yes' if report.is_watertight else 'NO'}")
        for note in report.notes:
            print(f"note: {note}")
        names = [path.name for path in report.files]
        shown = names[:FILES_SHOWN] + names[FILES_SHOWN:][-2:]
        more = f" ({len(names)} in all)" if len(names) > len(shown) else ""
        print(f"files: {', '.join(shown)}{more}")
        print(f"time: {report.seconds:.1f} s")
