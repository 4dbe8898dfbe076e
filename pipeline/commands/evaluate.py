"""`tessera evaluate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Compare a mesh with a reference: IoU, Chamfer-L1, accuracy, completeness, normal consistency, F-scores.

    Example: tessera evaluate runs/house/mesh.ply truth.ply --thresholds 0.01 0.05 --json metrics.json

    Attributes:
        mesh: mesh to evaluate ({meshes}).
        reference: mesh to compare with.
        thresholds: distances of further F-scores in the meshes' unit, beside that at 1% of the unit cube.
        samples: number of points drawn on each surface, and of queries for the IoU.
        seed: random seed of the samples.
        json: file to write the metrics to, in addition to the output.
    """

    mesh: Path = field(metadata={"place": "MESH"})
    reference: Path = field(metadata={"place": "REFERENCE"})
    thresholds: tuple[float, ...] = ()
    samples: int = 100_000
    seed: int = 0
    json: Path | None = None

    def run(self) -> None:
        """Measure, and print the metrics."""
        from json import dumps

        from foundation.atomic_file import appearing
        from pipeline.evaluation import evaluate
        from pipeline.overwriting import refuse_overwriting

        refuse_overwriting([self.json], [self.mesh, self.reference])
        metrics = evaluate(self.mesh, self.reference, self.thresholds, self.samples, self.seed)
        print(metrics.table())
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            with appearing(self.json) as partial:
                partial.write_text(dumps(asdict(metrics), indent=1))
