"""The demo's mesh against the exact house: ripples of the roof, and what its stations saw.

    python -m benchmarks.demo_accuracy [--demo out/demo] [--json FILE]

Reads the mesh that `tessera demo` wrote, or runs the demo first. Prints JSON: for each sloped plane of the roof the
root mean square of the signed distance of the mesh's vertices near it, in voxels (those more than 3 voxels away from
whatever is not parallel to it), and the share of the plane without a vertex near; signed normal consistency over what
lies nearest to a part of the house that a station saw; IoU with the solid over the places whose nearest part of the
house a station saw, at any distance and within 3 voxels. Exit code 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.machine import machine, tell
from benchmarks.seen_surface import SeenSurface, seen_surface
from pipeline.demo import demo, demo_building, demo_stations
from preprocessing.meshes.files import Mesh, read_mesh
from preprocessing.metrics import Occupancy, nearest_on_surface, occupancy_iou
from preprocessing.occupancy_labels import Solid
from preprocessing.procedural.scanner import ScannerConfig
from preprocessing.surface_sampling import sample_surface

ROOF_TILT_DEG = (10.0, 80.0)  # between a roof's normal and the vertical
SMALLEST_ROOF_M2 = 5.0
CLEAR = 3.0  # voxels to the nearest other part of the house
PARALLEL = 0.999  # cosine from which two planes count as the two sides of one slope
NEAR = 1.5  # voxels from a vertex to the plane it belongs to
SAMPLES = 200_000
LONGEST_EDGE_M = 0.1  # of the faces that are seen or not
RMS_BOUND, CONSISTENCY_BOUND, IOU_BOUND = 0.08, 0.90, 0.80

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]


@dataclass(frozen=True)
class RoofPlane:
    """One side of a slope; lengths in voxels.

    Attributes:
        tilt_deg: between its outward normal and up; more than 90 for an underside.
        area_m2: of the exact plane.
        vertices: of the mesh that were measured.
        rms, bias, largest: of their distances, positive outwards.
        bare_share: of the plane's clear places, without a vertex within `NEAR`.
    """

    tilt_deg: float
    area_m2: float
    vertices: int
    rms: float
    bias: float
    largest: float
    bare_share: float


def planes_of(vertices: Floats, faces: Faces) -> list[tuple[Floats, float, Faces]]:
    """The sloped planes of a house, undersides too: unit normal, offset along it, and faces of each."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(cross, axis=1)
    normals = cross / np.maximum(doubled, 1e-300)[:, None]
    offsets = (corners[:, 0] * normals).sum(axis=1)
    low, high = np.cos(np.radians(ROOF_TILT_DEG[::-1]))
    sloped = np.flatnonzero((np.abs(normals[:, 2]) > low) & (np.abs(normals[:, 2]) < high) & (doubled > 1e-9))
    keys = np.round(np.column_stack([normals, offsets])[sloped], 3)
    _, plane = np.unique(keys, axis=0, return_inverse=True)
    found = []
    for number in range(int(plane.max(initial=-1)) + 1):
        rows = sloped[plane == number]
        if 0.5 * doubled[rows].sum() >= SMALLEST_ROOF_M2:
            normal = np.average(normals[rows], axis=0, weights=doubled[rows])
            offset = float(np.average(offsets[rows], weights=doubled[rows]))
            found.append((normal / np.linalg.norm(normal), offset, rows))
    return found


def measure_plane(
    vertices: Floats, faces: Faces, plane: tuple[Floats, float, Faces], mesh: Mesh, voxel: float
) -> RoofPlane | None:
    """Compare the mesh's vertices with one exact plane of the house; None if no place of it is clear."""
    normal, offset, rows = plane
    of_plane = faces[rows]
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    is_parallel = np.abs(cross @ normal) > PARALLEL * np.linalg.norm(cross, axis=1)
    crossing = faces[~is_parallel]
    is_parallel[rows] = False
    parallels = faces[is_parallel]  # the other side of the slope, nearer than anything that ends a plane

    def is_clear(places: Floats) -> NDArray[np.bool_]:
        distance, _ = nearest_on_surface(vertices, crossing, places)
        clear: NDArray[np.bool_] = distance > CLEAR * voxel
        return clear

    asked, _ = sample_surface(vertices, of_plane, SAMPLES // 10, np.random.default_rng(0))
    asked = asked[is_clear(asked)]
    if not len(asked):
        return None
    heights = mesh.vertices @ normal - offset
    near = mesh.vertices[np.abs(heights) < NEAR * voxel]
    to_plane, _ = nearest_on_surface(vertices, of_plane, near)
    near = near[to_plane < NEAR * voxel]
    if len(parallels):
        to_parallel, _ = nearest_on_surface(vertices, parallels, near)
        near = near[np.abs(near @ normal - offset) < to_parallel]
    near = near[is_clear(near)]
    distances = (near @ normal - offset) / voxel if len(near) else np.array([np.inf])
    gaps = cKDTree(near).query(asked)[0] if len(near) else np.full(len(asked), np.inf)
    first, second, third = np.moveaxis(vertices[of_plane], 1, 0)
    area = 0.5 * np.linalg.norm(np.cross(second - first, third - first), axis=1).sum()
    return RoofPlane(
        tilt_deg=round(float(np.degrees(np.arccos(normal[2]))), 1),
        area_m2=round(float(area), 1),
        vertices=len(near),
        rms=round(float(np.sqrt((distances**2).mean())), 4),
        bias=round(float(distances.mean()), 4),
        largest=round(float(np.abs(distances).max()), 3),
        bare_share=round(float((gaps > NEAR * voxel).mean()), 4),
    )


def signed_consistency(surface: SeenSurface, whole: tuple[Floats, Faces], mesh: Mesh) -> float:
    """Mean cosine at nearest points, both ways, over what lies nearest to a seen part of the house."""
    rng = np.random.default_rng(0)
    points, normals = sample_surface(mesh.vertices, mesh.faces, SAMPLES, rng)
    is_seen = surface.is_nearest_seen(points)
    _, there = nearest_on_surface(*whole, points[is_seen])
    truth, truth_normals = sample_surface(surface.vertices, surface.seen, SAMPLES, rng)
    _, here = nearest_on_surface(mesh.vertices, mesh.faces, truth)
    cosines = np.concatenate([(normals[is_seen] * there).sum(axis=1), (truth_normals * here).sum(axis=1)])
    return float(np.nanmean(cosines))


def seen_iou(
    surface: SeenSurface, occupancy: Occupancy, mesh: Mesh, reach: float
) -> tuple[dict[str, float], dict[str, float]]:
    """IoU over uniform places whose nearest part of the house was seen, and over those within `reach` of it."""
    rng = np.random.default_rng(1)
    low = np.minimum(mesh.vertices.min(axis=0), surface.vertices.min(axis=0))
    high = np.maximum(mesh.vertices.max(axis=0), surface.vertices.max(axis=0))
    places = rng.uniform(low, high, (10 * SAMPLES, 3))
    places = places[surface.is_nearest_seen(places)]
    predicted, exact = Solid(mesh.vertices, mesh.faces).occupancy(places), occupancy(places)
    distance, _ = nearest_on_surface(surface.vertices, surface.seen, places)
    results = []
    for chosen in (np.full(len(places), True), distance < reach):
        iou, error = occupancy_iou(predicted[chosen], exact[chosen])
        results.append({"iou": round(iou, 4), "standard_error": round(error, 4)})
    return results[0], results[1]


def main() -> None:
    """Measure the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=Path("out/demo"), help="folder of the demo")
    parser.add_argument("--seed", type=int, default=7, help="of the demo's house")
    parser.add_argument("--json", type=Path, help="file for the report")
    given = parser.parse_args()
    if not (given.demo / "report.json").exists():
        demo(given.demo, given.seed)
    voxel = float(json.loads((given.demo / "report.json").read_text())["reconstruction"]["voxel_size"])
    mesh = read_mesh(given.demo / "mesh.ply")
    house = demo_building(given.seed)
    vertices, faces = house.mesh()
    stations = np.concatenate(demo_stations(house, np.random.default_rng([given.seed, 11])))
    surface = seen_surface(vertices, faces, stations, ScannerConfig(), LONGEST_EDGE_M)
    measured = [measure_plane(vertices, faces, plane, mesh, voxel) for plane in planes_of(vertices, faces)]
    planes = [plane for plane in measured if plane is not None]
    outer = [plane for plane in planes if plane.tilt_deg < 90]
    count = sum(plane.vertices for plane in outer)
    rms = float(np.sqrt(sum(plane.vertices * plane.rms**2 for plane in outer) / count)) if count else np.inf
    consistency = signed_consistency(surface, (vertices, faces), mesh)
    iou, iou_near = seen_iou(surface, house.occupancy, mesh, CLEAR * voxel)
    passed = {
        "roof_rms": rms <= RMS_BOUND and all(plane.bare_share == 0 for plane in outer),
        "normal_consistency_signed": consistency >= CONSISTENCY_BOUND,
        "iou": iou["iou"] >= IOU_BOUND,
    }
    report = {
        "machine": machine(),
        "voxel_size": voxel,
        "seen_share": round(surface.seen_share, 4),
        "roof_rms": round(rms, 4),
        "normal_consistency_signed": round(consistency, 4),
        "iou": iou,
        "iou_within_3_voxels": iou_near,
        "bounds": {"roof_rms": RMS_BOUND, "normal_consistency_signed": CONSISTENCY_BOUND, "iou": IOU_BOUND},
        "passed": passed,
        "planes": [asdict(plane) for plane in planes],
    }
    tell(report, given.json)
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
