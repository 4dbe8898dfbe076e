"""`tessera preprocess SOURCE`, one dataclass for each source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.isolation import CallLimits
    from preprocessing.sources import Collection, MeshOptions

Method = Literal["auto", "exact", "visibility"]
Up = Literal["y", "z"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset that is made of a collection.

    Attributes:
        out: Zarr store to write.
        address: {address}
    """

    out: Path
    address: str = "auto"

    def collection(self) -> Collection:
        """What it is made of."""
        raise NotImplementedError

    def limits(self) -> CallLimits | None:
        """What one shape may take; None for the usual limits."""
        return None

    def run(self) -> None:
        """Make it, and print how many shapes it holds and which were rejected."""
        from pipeline.preparation import preprocess
        from preprocessing.errors import DatasetError

        summary = preprocess(self.collection(), self.out, self.address, self.limits())
        print(
            f"{self.out}: {summary.shapes - len(summary.rejected)} of {summary.shapes} shapes "
            f"({summary.shards_made} shards made, {summary.shards_kept} kept), {len(summary.rejected)} rejected"
        )
        for repair in summary.repairs:
            print(f"  made again: {repair}")
        for entry in summary.rejected:
            print(f"  rejected {entry.name}: {entry.reason}")
        if len(summary.rejected) == summary.shapes:
            raise DatasetError(f"{self.out}: no shape could be used; see the reasons above")


@dataclass(frozen=True, kw_only=True)
class FolderDataset(Dataset):
    """A dataset that is made of a folder.

    Attributes:
        source: folder to read.
    """

    source: Path = field(metadata={"place": "SOURCE"})

    def run(self) -> None:
        """See `Dataset`; refuses to write over what is read."""
        from pipeline.overwriting import refuse_overwriting

        refuse_overwriting([self.out], [self.source])
        super().run()


@dataclass(frozen=True, kw_only=True)
class Rooms(Dataset):
    """Make a dataset of procedural rooms and furnished buildings, with exact occupancy.

    Run the same command again to finish an interrupted run.

    Example: tessera preprocess rooms --out rooms.zarr --rooms 64 --building-windows 64

    Attributes:
        rooms: number of synthetic rooms as in the paper (4 to 8 objects each).
        building_windows: number of 6 m windows of furnished buildings, half scanned, half sampled uniformly.
        seed: random seed of the first scene; the same seed gives the same bytes.
    """

    rooms: int = 640
    building_windows: int = 640
    seed: int = 0

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import RoomsConfig, rooms_collection

        return rooms_collection(RoomsConfig(self.rooms, self.building_windows, self.seed))


@dataclass(frozen=True, kw_only=True)
class Bodies(Dataset):
    """Make a dataset of procedural moving bodies (4D), with exact correspondences and occupancy at every time.

    Example: tessera preprocess bodies --out bodies.zarr --sequences 64 --views

    Attributes:
        sequences: number of bodies; they are articulated, bending, twisting and deforming in turn.
        frames: number of times in each sequence.
        seed: random seed of the first body; the same seed gives the same bytes.
        views: images and depth of every time from 4 fixed cameras as well.
        view_size: width and height of an image in pixels.
    """

    sequences: int = 64
    frames: int = 17
    seed: int = 0
    views: bool = False
    view_size: int = 137

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import BodiesConfig, bodies_collection

        config = BodiesConfig(self.sequences, self.frames, self.seed, self.view_size if self.views else 0)
        return bodies_collection(config)


@dataclass(frozen=True, kw_only=True)
class MeshDataset(FolderDataset):
    """A dataset of solids that are made of meshes.

    Attributes:
        method: conversion to a solid: exact takes closed meshes only, visibility rebuilds all, auto rebuilds open ones.
        resolution: lattice cells along each side of the cube in which surfaces are rebuilt.
        largest_chamfer: largest mean distance of a rebuilt surface from the input, in longest sides of the shape.
        largest_hausdorff: largest distance of a rebuilt surface from the input, in longest sides of the shape.
        voxels: a 32^3 voxel grid of each shape as well.
        views: 24 views of each shape (depth and shaded color) as well, with their cameras.
        view_size: width and height of a view in pixels.
        up: axis that points up in the files; used by the views only.
        timeout_s: time limit for one shape in seconds.
        memory_gib: memory limit for one shape in GiB.
    """

    method: Method = "auto"
    resolution: int = 128
    largest_chamfer: float = 0.01
    largest_hausdorff: float = 0.06
    voxels: bool = False
    views: bool = False
    view_size: int = 137
    up: Up = "z"
    timeout_s: float = 600.0
    memory_gib: float = 8.0

    def options(self) -> MeshOptions:
        """What is made of each mesh."""
        from preprocessing.sources import MeshOptions
        from preprocessing.watertight import VisibilityConfig, WatertightConfig

        watertight = WatertightConfig(
            self.method, VisibilityConfig(self.resolution), self.largest_chamfer, self.largest_hausdorff
        )
        view_size = self.view_size if self.views else 0
        return MeshOptions(watertight, voxel_side=32 if self.voxels else 0, view_size=view_size, up=self.up)

    def limits(self) -> CallLimits:
        """See `Dataset`."""
        from foundation.settings import check_at_least
        from pipeline.isolation import CallLimits

        check_at_least(0, memory_gib=self.memory_gib)
        return CallLimits(self.timeout_s, round(self.memory_gib * 2**30))


@dataclass(frozen=True, kw_only=True)
class Meshes(MeshDataset):
    """Make a dataset of a folder tree of meshes ({meshes}), watertight or not.

    Each mesh is closed, scaled to the unit cube, sampled and labeled. Meshes that cannot be used are listed with
    the reason. Run the same command again to finish an interrupted run.

    Example: tessera preprocess meshes furniture/ --out furniture.zarr --voxels --views

    Attributes:
        source: folder of the meshes; the first folder of a file's path is its category.
    """

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import meshes_collection

        return meshes_collection(self.source, self.options())


@dataclass(frozen=True, kw_only=True)
class ShapeNet(MeshDataset):
    """Make a dataset of ShapeNetCore v1 or v2, or of the prepared files of the Occupancy Networks papers.

    Example: tessera preprocess shapenet ShapeNetCore.v2/ --out chairs.zarr --classes chair sofa

    Attributes:
        source: folder that holds the synsets (03001627, ...); splits come from their train.lst, val.lst and test.lst.
        classes: numbers or names of the synsets to use; all by default.
    """

    classes: tuple[str, ...] = ()
    up: Up = "y"

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import shapenet_collection

        return shapenet_collection(self.source, self.options(), self.classes)


@dataclass(frozen=True, kw_only=True)
class ScanNet(FolderDataset):
    """Make an evaluation dataset of ScanNet scenes: points in meters, upright by the scenes' axis alignment.

    Example: tessera preprocess scannet ScanNet/scans --out scannet.zarr

    Attributes:
        source: folder of scene folders with *_vh_clean.ply or *_vh_clean_2.ply, and of scannetv2_val.txt and so on.
    """

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import scannet_collection

        return scannet_collection(self.source)


@dataclass(frozen=True, kw_only=True)
class Matterport(FolderDataset):
    """Make an evaluation dataset of Matterport3D regions or houses: points in meters.

    Example: tessera preprocess matterport v1/scans --out matterport.zarr

    Attributes:
        source: folder of one folder for each house, which holds region*.ply or the house's PLY.
    """

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import matterport_collection

        return matterport_collection(self.source)


@dataclass(frozen=True, kw_only=True)
class Humans(FolderDataset):
    """Make a dataset of mesh sequences with fixed topology (D-FAUST), or of the prepared files of Occupancy Flow.

    Example: tessera preprocess humans dfaust/ --out humans.zarr --frames 17

    Attributes:
        source: folder of folders of meshes ({meshes}), of .npz files with vertices (T, V, 3) and faces (F, 3), or of
            folders with pcl_seq and points_seq.
        frames: number of consecutive frames in a sequence; longer recordings are cut.
        views: images and depth of every time from 4 fixed cameras as well (meshes only).
        view_size: width and height of an image in pixels.
        up: axis that points up in the files; used by the views only.
    """

    frames: int = 17
    views: bool = False
    view_size: int = 137
    up: Up = "z"

    def collection(self) -> Collection:
        """See `Dataset`."""
        from preprocessing.sources import humans_collection

        return humans_collection(self.source, self.frames, self.view_size if self.views else 0, self.up)
