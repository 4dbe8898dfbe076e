"""`tessera reconstruct`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.commands.options import Device
from pipeline.reconstruction.config import ReconstructConfig


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Turn a point-cloud scan, of one file or several, into one watertight mesh.

    Reads {scans}, also gzipped, and COLMAP's points3D.bin.
    Run the same command again to finish an interrupted run: finished tiles are kept.

    Example: tessera reconstruct house.laz --out runs/house --mesh house.glb

    Example: tessera reconstruct 'site/*.laz' station1.e57 --out runs/site

    Example: tessera reconstruct house.laz --out runs/house --surface observed --mesh house_observed.ply

    Example: tessera reconstruct part.csv --columns id,x,y,z --unit mm --out runs/part

    Example: tessera reconstruct rooms.ply --model crop_room.safetensors --scene-size 4 --query-voxels 40 --out runs/r

    Attributes:
        scans: files of the scan, or quoted patterns; together they are one scan.
        out: run directory: points by tile, finished tiles, manifest, report.json, mesh.ply; or a URL of one, such as
            s3://bucket/run, with --mesh.
        mesh: file of the final mesh ({meshes} by its suffix); OUT/mesh.ply by default.
        surface: extent of the mesh: closed is watertight, observed leaves out faces that no scan point supports.
        keep_parts: floating parts of less than 24 observed voxels as well, which are left out by default.
        device: device that the network runs on.
        address: {address}
    """

    scans: tuple[Path, ...] = field(metadata={"place": "SCAN"})
    out: Path
    mesh: Path | None = None
    surface: Literal["closed", "observed"] = "closed"
    keep_parts: bool = False
    device: Device = "auto"
    address: str = "auto"
    config: ReconstructConfig = field(default_factory=ReconstructConfig)

    def run(self) -> None:
        """Reconstruct, and print what came out."""
        from convonet.weights import load_network
        from pipeline.reconstruction import reconstruct
        from pipeline.reconstruction.spacing import Granularity

        report = reconstruct(
            self.scans,
            self.out,
            self.config,
            self.mesh,
            self.device,
            self.address,
            surface=self.surface,
            keep_parts=self.keep_parts,
        )
        side = load_network(self.config.model).voxel_side
        rule = "by the spacing and noise of the scan" if side is None else f"{side:g} of the scene's size"
        chosen = "" if self.config.voxel_size else f", {rule}"
        print(f"{report.mesh}: {report.vertices:,} vertices, {report.faces:,} faces")
        open_border = f" (its border has {report.open_edges:,} edges)" if self.surface == "observed" else ""
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
