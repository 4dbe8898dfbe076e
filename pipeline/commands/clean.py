"""`tessera clean`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Clean:
    """List or remove what killed commands have left in a run directory, a dataset or a training folder.

    That is half-written files, intermediate results of a finished run, checkpoints that no run continues from, and
    the folders of private Rays whose command has ended. A folder in which another command is at work is refused.

    Example: tessera clean runs/house

    Example: tessera clean runs/house --yes

    Attributes:
        path: folder to clean.
        yes: removal of the listed files and folders, instead of the list alone.
    """

    path: Path = field(metadata={"place": "PATH"})
    yes: bool = False

    def run(self) -> None:
        """Print what there is, and remove it if asked to."""
        from pipeline.litter import clean

        found = clean(self.path, self.yes)
        for litter in found:
            print(f"{litter.size_bytes / 1e6:10,.1f} MB  {litter.path} ({litter.what})")
        total = f"{sum(litter.size_bytes for litter in found) / 1e6:,.1f} MB in {len(found)} places"
        if not found:
            print(f"{self.path}: nothing to remove")
        elif self.yes:
            print(f"{self.path}: {total} removed")
        else:
            print(f"{self.path}: {total} would be freed; pass --yes to remove them")
