"""`tessera info`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.scan_files.options import ScanOptions


@dataclass(frozen=True, kw_only=True)
class Info:
    """Describe a dataset, a run directory, a scan, a mesh or a weights file; without PATH, this installation.

    For a scan it prints the columns used, the bounding box, the unit, stations, classes and warnings.

    Example: tessera info rooms.zarr --check

    Example: tessera info runs/site --check

    Example: tessera info survey.csv --columns id,x,y,z

    Attributes:
        path: file or folder to describe; a scan ({scans}), a mesh ({meshes}), or one of Tessera's own.
        check: verification of every file of a dataset or a run directory against its checksum; exit code 1 if one
            differs.
    """

    path: Path | None = field(default=None, metadata={"place": "PATH"})
    check: bool = False
    reading: ScanOptions = field(default_factory=ScanOptions)

    def run(self) -> None:
        """Print the description."""
        from pipeline import description

        if self.path is None:
            print("\n".join(description.describe_installation()))
            return
        print("\n".join(description.describe(self.path, self.reading)))
        if self.check:
            print(f"  {description.check(self.path)}")
