"""Folders of mesh files: any tree of them, and ShapeNetCore as it is distributed or as the papers prepared it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from preprocessing.dataset import DatasetLayout, ShapeSamples
from preprocessing.errors import DatasetError
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.mesh_samples import ShapeLabels, mesh_samples
from preprocessing.meshes.files import read_mesh, up_axis
from preprocessing.sources.folders import existing_folder, files_below, read_text
from preprocessing.sources.prepared_shapes import PreparedUnit, is_prepared, prepared_layout
from preprocessing.sources.splits import folder_lists, name_seed, split_of_name
from preprocessing.sources.unit import Collection, NamedUnit, Unit, fingerprint
from preprocessing.watertight import WatertightConfig

VIEWS = 24
SHAPENET_FILES = (
    "models/model_normalized.obj",  # ShapeNetCore v2
    "models/model_normalized.solid.obj",
    "model_normalized.obj",
    "model.obj",  # ShapeNetCore v1
    "models/model.obj",
)
# The 13 classes of Choy et al. 2016, which ONet and ConvONet use.
SHAPENET_13 = {
    "02691156": "airplane",
    "02828884": "bench",
    "02933112": "cabinet",
    "02958343": "car",
    "03001627": "chair",
    "03211117": "display",
    "03636649": "lamp",
    "03691459": "loudspeaker",
    "04090263": "rifle",
    "04256520": "sofa",
    "04379243": "table",
    "04401088": "telephone",
    "04530566": "vessel",
}


@dataclass(frozen=True)
class MeshOptions:
    """What to make of each mesh.

    Attributes:
        watertight: how to close it.
        voxel_side: side of its voxel grid; 0 for none.
        view_size: width and height of its 24 pictures in pixels; 0 for none.
        up: the axis that points up in the files; only the pictures need it.
    """

    watertight: WatertightConfig = field(default_factory=WatertightConfig)
    voxel_side: int = 0
    view_size: int = 0
    up: Literal["y", "z"] = "z"

    def layout(self, shapes: int, categories: Sequence[str]) -> DatasetLayout:
        """The layout of a dataset of so many meshes."""
        return DatasetLayout(
            shapes,
            tuple(categories),
            voxel_side=self.voxel_side,
            views=VIEWS if self.view_size else 0,
            view_size=self.view_size,
            has_distances=True,
        )


@dataclass(frozen=True)
class MeshUnit(NamedUnit):
    """One mesh file; its name is its path below the source folder."""

    options: MeshOptions

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Read, close, sample and label."""
        path = Path(self.path)
        mesh = read_mesh(path)
        facts = {"file": self.path, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        up = up_axis(path, self.options.up)
        labels = ShapeLabels(self.name, self.category, self.split, name_seed(self.name), up, dict(facts))
        return [mesh_samples(mesh.vertices, mesh.faces, labels, layout, self.options.watertight)]


def meshes_collection(root: Path, options: MeshOptions) -> Collection:
    """Every mesh file below a folder; the first folder of its path is its category.

    A category's folder may hold `train.lst`, `val.lst` and `test.lst` with the names (without suffix) of the
    files in it; other files are split by their name's hash.

    Raises:
        DatasetError: if there is no mesh.
    """
    root = existing_folder(root)
    files = files_below(root, MESH_SUFFIXES)
    if not files:
        raise DatasetError(f"{root}: holds no mesh files ({', '.join(MESH_SUFFIXES)})")
    lists = {folder.name: folder_lists(folder) for folder in root.iterdir() if folder.is_dir()}
    units = []
    for path in files:
        name = path.relative_to(root).as_posix()
        category = name.split("/")[0] if "/" in name else root.name
        split = lists.get(category, {}).get(path.stem) or split_of_name(name)
        units.append(MeshUnit(str(path), name, category, split, options))
    return _collection("meshes", units, options)


def shapenet_collection(root: Path, options: MeshOptions, classes: Sequence[str] = ()) -> Collection:
    """ShapeNetCore v1 or v2, or the originals' prepared files (`pointcloud.npz`, `points.npz`, ...).

    Args:
        root: holds one folder for each synset, in it one for each model.
        options: as for any mesh; prepared files bring their own voxels and pictures.
        classes: synset numbers or names to take; all that are there by default.

    Raises:
        DatasetError: if the layout is not ShapeNet's, or a class is not there.
    """
    root = existing_folder(root)
    synsets = sorted(
        folder for folder in root.iterdir() if folder.is_dir() and re.fullmatch(r"\d{8}", folder.name)
    )
    if not synsets:
        raise DatasetError(f"{root}: has no synset folders such as 03001627; name the folder that holds them")
    names = SHAPENET_13 | _taxonomy(root)
    category = {folder.name: names.get(folder.name, folder.name) for folder in synsets}
    unknown = [wanted for wanted in classes if wanted not in category and wanted not in category.values()]
    if unknown:
        raise DatasetError(
            f"{root}: no class {', '.join(unknown)}; there are "
            + ", ".join(f"{k} ({v})" for k, v in category.items())
        )
    if classes:
        synsets = [f for f in synsets if f.name in classes or category[f.name] in classes]
    models = [model for synset in synsets for model in sorted(synset.iterdir()) if model.is_dir()]
    if not models:
        raise DatasetError(f"{root}: its synset folders hold no models")
    splits = {synset.name: folder_lists(synset) for synset in synsets}
    prepared = [model for model in models if is_prepared(model)]
    units: list[Unit] = []
    for model in models:
        synset = model.parent.name
        name = f"{synset}/{model.name}"
        split = splits[synset].get(model.name) or split_of_name(name)
        if prepared:
            units.append(PreparedUnit(str(model), name, category[synset], split))
        else:
            found = [model / file for file in SHAPENET_FILES if (model / file).is_file()]
            path = found[0] if found else model / SHAPENET_FILES[3]  # its absence is told when it is read
            units.append(MeshUnit(str(path), name, category[synset], split, options))
    if not prepared:
        return _collection("shapenet", units, options)
    categories = sorted({category[synset.name] for synset in synsets})
    layout = prepared_layout(prepared[0], len(units), categories)
    return Collection(tuple(units), layout, {"source": "shapenet prepared", "models": _listed(units)})


def _collection(source: str, units: Sequence[Any], options: MeshOptions) -> Collection:
    layout = options.layout(len(units), sorted({unit.category for unit in units}))
    provenance = {"source": source, "meshes": _listed(units), "options": asdict(options)}
    return Collection(tuple(units), layout, provenance)


def _listed(units: Sequence[Any]) -> dict[str, Any]:
    return fingerprint([(unit.name, unit.category, unit.split) for unit in units])


def _taxonomy(root: Path) -> dict[str, str]:
    """Class names by synset, from ShapeNetCore's `taxonomy.json` or the originals' `metadata.yaml`."""
    names: dict[str, str] = {}
    if (root / "taxonomy.json").is_file():
        try:
            entries = json.loads(read_text(root / "taxonomy.json"))
            names |= {entry["synsetId"]: entry["name"].split(",")[0] for entry in entries}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{root / 'taxonomy.json'}: is not ShapeNet's list; copy it again") from error
    if (root / "metadata.yaml").is_file():
        text = read_text(root / "metadata.yaml")
        for synset, name in re.findall(r"id:\s*'?(\d{8})'?\s+name:\s*'?([^,'\n]+)", text):
            names[synset] = name.strip()
    return names
