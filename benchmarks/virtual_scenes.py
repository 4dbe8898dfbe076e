"""Exact scenes with stations in them, and their virtual scans at any density and noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from benchmarks.closed_solids import ClosedSolid, collected_solid
from pipeline.demo import demo_stations
from preprocessing.procedural.buildings import BuildingConfig, building
from preprocessing.procedural.scanner import Scan, ScannerConfig, scan
from preprocessing.procedural.solids import box, union_mesh

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]

BUILDINGS = (  # seeds that no training run takes
    BuildingConfig(seed=900_001, size_x=9.0, size_y=8.0, floors=1, roof="pitched"),
    BuildingConfig(seed=900_002, size_x=12.0, size_y=9.0, floors=1, roof="flat"),
    BuildingConfig(seed=900_003, size_x=10.0, size_y=8.0, floors=2, roof="pitched"),
)
FURNITURE = (  # one row of the showroom after the other
    "objects_aws_house/ChairA_01",
    "objects_aws_house/KitchenTable_01",
    "objects_aws_house/Sofa_01",
    "objects_aws_house/Wardrobe_01",
    "objects_aws_house/Bed_01",
    "objects_aws_house/BalconyTable_01",
    "objects_aws_house/FitnessEquipment_01",
    "objects_aws_house/ShoeRack_01",
    "objects_aws_house/NightStand_01",
    "objects_aws_house/Refrigerator_01",
    "objects_aws_house/Trash_01",
    "objects_aws_house/Ball_01",
    "objects_kaykit/armchair",
    "objects_kaykit/table_low",
    "objects_kaykit/lamp_standing",
    "objects_kaykit/cactus_medium_A",
)
COLUMNS, PITCH = 4, 2.9  # meters between the middles of the furniture; aisles for the stations between
OUTER_RAYS = 7  # as many as an inner station casts
PROBE_RAYS = 2_000  # of an inner station, to find how many give the points asked for
WALL_HEIGHT, WALL = 2.8, 0.2
LARGEST_PIECE = 2.1  # meters; larger pieces, and those in arbitrary units, are scaled down to it
SUNK_M = 0.002  # that pieces reach into the floor, so that the union is one solid


@dataclass(frozen=True)
class VirtualScene:
    """A scene whose surface is known.

    Attributes:
        name: unique.
        vertices, faces: watertight, facing out, meters, z up.
        stations: (S, 3) where scanners stand; outer_stations: (T, 3) those that cast `OUTER_RAYS` times as many
            rays, because they look from farther away.
    """

    name: str
    vertices: Floats
    faces: Faces
    stations: Floats
    outer_stations: Floats

    @property
    def every_station(self) -> Floats:
        """(S + T, 3)."""
        return np.concatenate([self.stations, self.outer_stations])


def held_out_building(config: BuildingConfig) -> VirtualScene:
    """A furnished building, scanned from its rooms and from a ring around it."""
    made = building(config)
    inside, ring = demo_stations(made, np.random.default_rng([config.seed, 12]))
    return VirtualScene(made.name, *made.mesh(), inside, ring)


def showroom(meshes: Path, cache: Path) -> VirtualScene:
    """Collected furniture, closed, each piece turned by another angle, on a floor between four walls.

    Args:
        meshes: folder of the collections.
        cache: folder of the closed meshes.

    Raises:
        MeshError: if a piece cannot be read or closed.
    """
    rng = np.random.default_rng(900_004)
    rows = -(-len(FURNITURE) // COLUMNS)
    x, y = COLUMNS * PITCH, rows * PITCH
    shell = [box((-WALL, -WALL, -0.25), (x + WALL, y + WALL, 0.0))]
    for low, high in (
        ((-WALL, -WALL), (0.0, y + WALL)),
        ((x, -WALL), (x + WALL, y + WALL)),
        ((-WALL, -WALL), (x + WALL, 0.0)),
        ((-WALL, y), (x + WALL, y + WALL)),
    ):
        shell.append(box((*low, -0.25), (*high, WALL_HEIGHT)))
    parts = [trimesh.Trimesh(*union_mesh(shell), process=False)]
    for number, name in enumerate(FURNITURE):
        piece = collected_solid(meshes / f"{name}.ply", cache)
        column, row = number % COLUMNS, number // COLUMNS
        place = (np.array([column, row]) + 0.5) * PITCH
        parts.append(_standing(piece, place, float(rng.uniform(0, 2 * np.pi))))
    whole = trimesh.boolean.union(parts, engine="manifold")
    aisles = [(i * PITCH, j * PITCH) for i in range(1, COLUMNS) for j in range(1, rows)]
    stations = np.array([(a, b, 1.5 + 0.1 * (number % 3)) for number, (a, b) in enumerate(aisles)])
    vertices, faces = np.asarray(whole.vertices, np.float64), np.asarray(whole.faces, np.int64)
    return VirtualScene("showroom", vertices, faces, stations, np.zeros((0, 3)))


def _standing(piece: ClosedSolid, place: Floats, angle: float) -> trimesh.Trimesh:
    piece = piece.scaled(min(1.0, LARGEST_PIECE / piece.longest_side))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    vertices = piece.vertices @ turn.T
    vertices += np.array([*place, -float(vertices[:, 2].min()) - SUNK_M])
    return trimesh.Trimesh(vertices, piece.faces, process=False)


def scanned(scene: VirtualScene, points: int, noise_m: float, seed: int) -> Scan:
    """A scan with about so many points and a range noise that does not grow with the range.

    Normals are those of the surface hit, turned to the station.
    """
    rng = np.random.default_rng([seed, points])
    probe = ScannerConfig(rays_per_station=PROBE_RAYS, noise_base_m=noise_m, noise_per_meter=0.0)
    rays = round(PROBE_RAYS * points / len(_from_all_stations(scene, probe, rng).points))
    return _from_all_stations(scene, replace(probe, rays_per_station=rays), rng)


def _from_all_stations(scene: VirtualScene, config: ScannerConfig, rng: np.random.Generator) -> Scan:
    outer = replace(config, rays_per_station=OUTER_RAYS * config.rays_per_station)
    near = scan(scene.vertices, scene.faces, scene.stations, config, rng)
    far = scan(scene.vertices, scene.faces, scene.outer_stations, outer, rng)
    return Scan(
        np.concatenate([near.points, far.points]),
        np.concatenate([near.normals, far.normals]),
        np.concatenate([near.station, far.station + len(scene.stations)]),
    )
