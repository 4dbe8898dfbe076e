"""Where the installed `tessera` command starts: its own packages come first, whatever else has their names.

A wheel holds this file as the package `tessera_mesh` with `foundation`, `convonet`, `preprocessing` and `pipeline`
below, so that an installation overwrites nobody's modules (docs/decisions/010-installed-modules.md). Programs find them
through `tessera_mesh.pth`, after their own modules; the command and the processes that it starts find them before all
others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line."""
    home = Path(__file__).resolve().parent
    if (home / "pipeline").is_dir():  # not so where the packages are those of a clone
        sys.path.insert(0, str(home))
        others = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(home) if not others else f"{home}{os.pathsep}{others}"
    from pipeline.cli import main as run

    run()
