"""`tessera demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.options import Device


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Scan a procedural two-floor building, reconstruct it, and compare the mesh with the exact one.

    Writes mesh.ply, preview.png and report.json.

    Example: tessera demo --out out/demo

    Attributes:
        out: folder of the results.
        seed: random seed of the building.
        device: device that the network runs on.
        address: {address}
    """

    out: Path = Path("out/demo")
    seed: int = 7
    device: Device = "auto"
    address: str = "auto"

    def run(self) -> None:
        """Run it, and print the metrics."""
        from pipeline.demo import demo

        report = demo(self.out, self.seed, self.device, self.address)
        size = " x ".join(f"{side:.1f}" for side in report.building_size_m)
        made = report.reconstruction
        print(f"building of {size} m, {report.scan_points:,} scan points, {made.faces:,} faces")
        print(f"watertight: {'yes' if made.is_watertight else 'NO'}")
        print(report.metrics.table())
        print("time: " + ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items()))
        print(f"peak memory: {report.peak_memory_bytes / 2**30:.2f} GiB")
        print(f"look at {self.out / 'preview.png'} and {self.out / 'mesh.ply'}")
