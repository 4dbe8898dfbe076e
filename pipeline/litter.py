"""What killed commands have left behind, and how it is removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from foundation.local_paths import local_path
from pipeline.errors import PipelineError
from pipeline.lease import LEASE_FILE, lease
from pipeline.ray_folder import abandoned_ray_folders

HALF_WRITTEN = re.compile(r"\.partial-[0-9a-f]{32}$|^config\.partial$")
# A waiting command's, for a moment.
LEASE_ASIDE = re.compile(rf"^{re.escape(LEASE_FILE)}\.([0-9a-f]{{32}}|turn)(\.[0-9a-f]{{32}})?$")
UNTOUCHED_S = 600.0  # several commands may work on one dataset: what was written to lately may be one's
INTERMEDIATE = ("fields", "levels")  # folders of a run that nobody needs once all surfaces are there


@dataclass(frozen=True)
class Litter:
    """A file or folder that nobody needs.

    Attributes:
        path: where it lies.
        size_bytes: of all its files.
        what: it is, in a few words.
    """

    path: Path
    size_bytes: int
    what: str


def find_litter(folder: Path) -> list[Litter]:
    """What may go of a run directory, a dataset or a training folder, and of the machine's private Rays.

    Raises:
        PipelineError: if the folder is none of these.
    """
    folder = local_path(folder)
    if (folder / "manifest.json").is_file():
        found = [*litter_of_run(folder, _meshes(folder)), *intermediate_results(folder)]
    elif (folder / "zarr.json").is_file():
        found = _litter_of_dataset(folder)
    elif (folder / "config.json").is_file() and (folder / "ray").is_dir():
        found = litter_of_training(folder)
    else:
        raise PipelineError(f"{folder}: neither a run directory, a dataset nor a training folder")
    return [*found, *(_litter(path, "files of a Ray that has ended") for path in abandoned_ray_folders())]


def clean(folder: Path, removes: bool) -> list[Litter]:
    """Find the litter of a folder and remove it if asked to, while no other command works there.

    Raises:
        PipelineError: as `find_litter`.
        RunDirectoryError: if another command holds the folder.
    """
    find_litter(folder)  # refuses before anything is written
    with lease(folder):
        found = find_litter(folder)
        if removes:
            remove(found)
    return found


def remove(found: Iterable[Litter]) -> None:
    """Remove files and folders; one that another process removes meanwhile is no error."""
    for litter in found:
        if litter.path.is_dir():
            shutil.rmtree(litter.path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                litter.path.unlink()


def litter_of_run(folder: Path, meshes: Sequence[Path]) -> list[Litter]:
    """Of a run directory whose lease the caller holds, and beside the meshes that it wrote elsewhere."""
    places = {mesh.parent.absolute() for mesh in meshes if mesh.parent.is_dir()} - {folder.absolute()}
    names = tuple(f".{mesh.name}.partial-" for mesh in meshes)
    beside = (path for place in sorted(places) for path in place.iterdir() if path.name.startswith(names))
    return [
        _litter(path, "half-written") for path in (*_half_written(folder), *filter(_is_half_written, beside))
    ]


def intermediate_results(folder: Path) -> list[Litter]:
    """Of a run directory whose surfaces are all there, and whose lease the caller holds."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((folder / "manifest.json").read_text())["surface_tiles"] is not None:
            present = [folder / name for name in INTERMEDIATE if (folder / name).is_dir()]
            return [_litter(path, "intermediate results of a finished run") for path in present]
    return []


def litter_of_training(folder: Path) -> list[Litter]:
    """Of a training folder whose lease the caller holds: also checkpoints that Ray Train has no record of."""
    found = [_litter(path, "half-written") for path in _half_written(folder)]
    with suppress(OSError, ValueError, KeyError, TypeError):
        listed = json.loads((folder / "ray" / "checkpoint_manager_snapshot.json").read_text())
        known = {entry["checkpoint_dir_name"] for entry in listed["checkpoint_results"]}
        for path in sorted((folder / "ray").glob("checkpoint_*")):
            if path.is_dir() and path.name not in known:
                found.append(_litter(path, "a checkpoint that no run continues from"))
    return found


def _litter_of_dataset(folder: Path) -> list[Litter]:
    beside = sorted(folder.parent.glob(f".{folder.name}.creating-*"))
    return [_litter(path, "half-written") for path in (*_half_written(folder), *beside) if _is_old(path)]


def _meshes(folder: Path) -> list[Path]:
    """Where a run wrote its mesh last."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return [Path(json.loads((folder / "report.json").read_text())["mesh"])]
    return []


def _half_written(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for path in (Path(place, name) for name in sorted(files)):
            if _is_half_written(path) or (LEASE_ASIDE.search(path.name) and _is_old(path)):
                yield path


def _is_half_written(path: Path) -> bool:
    return HALF_WRITTEN.search(path.name) is not None


def _litter(path: Path, what: str) -> Litter:
    return Litter(path, sum(file.lstat().st_size for file in _files(path)), what)


def _is_old(path: Path) -> bool:
    """Whether neither a file nor anything in a folder was written to lately; False if it is gone."""
    now = time.time()
    touched = (file.lstat().st_mtime for file in (path, *_files(path)) if file.exists())
    return now - max(touched, default=now) > UNTOUCHED_S


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.exists() else []
    return [Path(place, name) for place, _, files in os.walk(path) for name in files]
