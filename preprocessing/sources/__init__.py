"""Where training shapes come from: procedural scenes and bodies, collections of meshes, scans, sequences."""

from preprocessing.sources.collected_meshes import MeshOptions, meshes_collection, shapenet_collection
from preprocessing.sources.moving_shapes import BodiesConfig, bodies_collection, humans_collection
from preprocessing.sources.rooms import RoomsConfig, rooms_collection
from preprocessing.sources.scanned_scenes import matterport_collection, scannet_collection
from preprocessing.sources.unit import Collection, Unit

__all__ = [
    "BodiesConfig",
    "Collection",
    "MeshOptions",
    "RoomsConfig",
    "Unit",
    "bodies_collection",
    "humans_collection",
    "matterport_collection",
    "meshes_collection",
    "rooms_collection",
    "scannet_collection",
    "shapenet_collection",
]
