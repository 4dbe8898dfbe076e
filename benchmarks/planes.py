"""How far the surface lies from exact planes, spheres and cylinders, at any angle and density.

    python -m benchmarks.planes [--model NAME|FILE] [--quick] [--directions] [--threshold 0.5] [--json FILE]

Slabs 5 voxels thick with points on both faces, at random phase to the voxels: normals along an axis, turned about z
by 10, 22 and 37 degrees, of roofs of 8, 20, 30 and 42 degrees, and of any direction; and hollow balls and pipes of
radius 12 to 60 voxels whose walls are as thick. The field of a reconstruction's finest level, fitted to the points and
interpolated on its lattice, is followed along the exact normal at places within 12 voxels of the middle of a crop that
holds the whole receptive field. Prints JSON, in voxels: root mean square, bias (positive: outwards) and largest
distance of the crossing from inside to outside nearest to the surface, the share of the places that have none within
1.5 voxels ("lost"), and the same of the network alone.

Closed balls and cylinders of radius 3 to 60 voxels, with points on the outside, are reconstructed whole: the pyramid
decides which side is solid. Measured are the vertices of the mesh; lost are places without one within 1.5 voxels.

With `--directions` the network is told the free side of every point, as by a scan with stations or normals. Exit code 1
if a bound is missed.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.machine import machine, tell
from benchmarks.probe_solids import EDGE_VOXELS, ProbeSolid
from benchmarks.probe_surfaces import (
    FEET_RADIUS,
    Probe,
    ProbeSurface,
    pipe,
    random_direction,
    slab,
    sphere_shell,
)
from convonet import DEFAULT_MODEL
from convonet.crop_network import CropNetwork
from convonet.weights import load_network
from pipeline.cluster import ray_session
from pipeline.reconstruction import reconstruct
from pipeline.reconstruction.config import ReconstructConfig
from pipeline.reconstruction.crop_field import CropField, CropPoints, LatticeField
from pipeline.reconstruction.plan import ScenePlan, make_plan
from pipeline.reconstruction.scan_fit import radius_for_noise
from preprocessing.meshes.files import read_mesh
from preprocessing.rotations import random_rotation
from preprocessing.scan_files import write_scan_ply

SEARCH = 1.5  # voxels to both sides of the exact surface
STEP = 0.125  # voxels between the places where a normal is followed; crossings are interpolated between them
FEET = 1500  # of one crop
WALL = 5.0  # voxels between the faces of slabs and shells
DENSITIES = (1.0, 4.0, 10.0)  # points a voxel face
NOISES = (0.02, 0.2)  # voxels
TURNS = (10.0, 22.0, 37.0)
PITCHES = (8.0, 20.0, 30.0, 42.0)
RADII = (3.0, 6.0, 12.0, 25.0, 60.0)
SHELL_RADII = (12.0, 25.0, 60.0)
CURVED_DENSITY, CURVED_NOISE = 4.0, 0.2
RMS_BOUND, SPARSE_BOUND, CURVED_BOUND = 0.05, 0.10, 0.10

CPU = torch.device("cpu")

Floats = NDArray[np.float64]
Lattice = NDArray[np.int64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Row:
    """One line of the table; lengths in voxels.

    Attributes:
        surface: kind of surface.
        density: points a voxel face.
        noise: standard deviation of the points along each axis.
        crops, feet: how many were measured.
        rms, bias, largest: of the crossings found.
        lost: share of the feet without a crossing.
        network_rms, network_bias, network_lost: of the network's own field; None of a whole reconstruction.
        rms_bound: what `rms` must not exceed.
        lost_bound: what `lost` must not exceed.
    """

    surface: str
    density: float
    noise: float
    crops: int
    feet: int
    rms: float
    bias: float
    largest: float
    lost: float
    network_rms: float | None
    network_bias: float | None
    network_lost: float | None
    rms_bound: float
    lost_bound: float

    @property
    def passed(self) -> bool:
        """Whether both bounds hold; without any crossing, no."""
        return self.rms <= self.rms_bound and self.lost <= self.lost_bound


def probe_plan(network: CropNetwork, config: ReconstructConfig) -> ScenePlan:
    """One tile of voxels of 1 m around the origin, in which every foot is followed, and its crop."""
    reach = np.full(3, FEET_RADIUS + SEARCH + network.pooling_factor / 2)
    plan = make_plan(-reach, reach, 1.0, config, network.receptive_radius, network.pooling_factor, "probe")
    assert plan.tile_count == 1
    return plan


def crossings(
    network: CropNetwork,
    config: ReconstructConfig,
    plan: ScenePlan,
    probe: Probe,
    noise: float,
    has_directions: bool,
    rng: Rng,
) -> Floats:
    """Signed distance (2, K) of the surface from the exact one at each foot; NaN where it has none.

    The first row is that of the field as reconstruction extracts it, the second that of the network alone.

    Args:
        network: on the CPU.
        config: with a threshold; plan: see `probe_plan`.
        probe: points and feet around the middle.
        noise: standard deviation added to the points, in voxels.
        has_directions: whether the network is told the points' normals.
        rng: of the noise and of the phase between the middle and the voxels.
    """
    threshold = config.threshold
    assert threshold is not None
    middle = network.pooling_factor * rng.uniform(-0.5, 0.5, 3)
    points = plan.voxel_position(probe.points + middle + rng.normal(0, noise, probe.points.shape))
    low = np.asarray(plan.crop_low(0))
    kept = ((points >= low) & (points < low + plan.crop_shape[::-1])).all(axis=1)
    directions = probe.point_normals[kept] * has_directions
    crop = CropPoints(points[kept], directions.astype(np.float32))
    field = CropField(network, CPU, plan, 0, crop.thinned(plan.cells_per_voxel), None)
    fitted = LatticeField(field, plan, 0, threshold)
    fitted.fit(crop.positions, network.logits_per_voxel, radius_for_noise(noise))

    offsets = np.arange(-SEARCH, SEARCH + STEP / 2, STEP)
    feet = plan.voxel_position(probe.feet + middle)
    queries = (feet[:, None] + offsets[:, None] * probe.normals[:, None]).reshape(-1, 3)
    level = float(np.log(threshold / (1 - threshold)))
    values = interpolated(fitted, queries * plan.cells_per_voxel), field.at(queries) - level
    rows = [outward_crossings(found.reshape(len(feet), len(offsets)), offsets) for found in values]
    return np.stack(rows)


def interpolated(field: Callable[[Lattice], NDArray[np.float32]], positions: Floats) -> Floats:
    """A lattice field between its points, trilinear: (N,) at positions (N, 3) in lattice units."""
    low = np.floor(positions).astype(np.int64)
    corners = np.array(list(itertools.product((0, 1), repeat=3)))
    around = (low[:, None] + corners).reshape(-1, 3)
    points, back = np.unique(around, axis=0, return_inverse=True)
    shares = np.where(corners, (positions - low)[:, None], 1 - (positions - low)[:, None]).prod(axis=2)
    mixed: Floats = (field(points)[back].reshape(shares.shape) * shares).sum(axis=1)
    return mixed


def outward_crossings(values: NDArray[np.floating], offsets: Floats) -> Floats:
    """Offset (K,) of each row's crossing from positive to negative nearest to 0; NaN where it has none.

    Args:
        values: (K, S) of the field along a normal, from inside to outside; positive inside.
        offsets: (S,) ascending.
    """
    before, after = values[:, :-1].astype(np.float64), values[:, 1:].astype(np.float64)
    falls = (before > 0) & (after <= 0)
    share = np.divide(before, before - after, out=np.zeros_like(before), where=falls)
    places = np.where(falls, offsets[:-1] + share * np.diff(offsets), np.nan)
    nearest = np.where(falls, np.abs(places), np.inf).argmin(axis=1)
    found: Floats = places[np.arange(len(places)), nearest]
    return found


def slabs(rng: Rng, repeats: int) -> Iterator[list[ProbeSurface]]:
    """The kinds of planes, each with `repeats` slabs of every angle."""

    def named(name: str, normals: list[Floats]) -> list[ProbeSurface]:
        return [slab(name, normal, WALL) for normal in normals]

    turned = [np.array([np.cos(a), np.sin(a), 0.0]) for a in np.radians(TURNS)]
    roofs = [np.array([np.sin(a), 0.0, np.cos(a)]) for a in np.radians(PITCHES)]
    roofs[1::2] = [normal[[1, 0, 2]] for normal in roofs[1::2]]
    yield named("axis", repeats * list(np.eye(3)))
    yield named("about z", repeats * turned)
    yield named("roof", repeats * roofs)
    yield named("any", [random_direction(rng) for _ in range(6 * repeats)])


def shells(rng: Rng, repeats: int) -> Iterator[list[ProbeSurface]]:
    """Hollow balls and pipes of each radius, turned at random."""
    for kind, make in (("hollow ball", sphere_shell), ("pipe", pipe)):
        for radius in SHELL_RADII:
            name = f"{kind} of radius {radius:g}"
            yield [make(name, radius, WALL, random_direction(rng)) for _ in range(2 * repeats)]


def solids() -> Iterator[ProbeSolid]:
    """Closed balls and cylinders of each radius."""
    for radius in RADII:
        yield ProbeSolid(f"ball of radius {radius:g}", radius)
    for radius in RADII:
        yield ProbeSolid(f"cylinder of radius {radius:g}", radius, max(radius, 2 * EDGE_VOXELS))


def measure(
    network: CropNetwork,
    threshold: float,
    surfaces: list[ProbeSurface],
    density: float,
    noise: float,
    bounds: tuple[float, float],
    has_directions: bool,
    rng: Rng,
) -> Row:
    """One row: every surface in a crop of its own."""
    config = ReconstructConfig(voxel_size=1.0, threshold=threshold).for_network(network, 1.0)
    plan = probe_plan(network, config)
    reach = float(np.linalg.norm(np.array(plan.crop_shape) + network.pooling_factor)) / 2
    found = np.concatenate(
        [
            crossings(
                network, config, plan, surface.probe(density, reach, FEET, rng), noise, has_directions, rng
            )
            for surface in surfaces
        ],
        axis=1,
    )
    fitted, own = (row[np.isfinite(row)] if np.isfinite(row).any() else np.array([np.inf]) for row in found)
    return _told(
        Row(
            surface=surfaces[0].name,
            density=density,
            noise=noise,
            crops=len(surfaces),
            feet=found.shape[1],
            **_figures(fitted),
            lost=round(float(np.isnan(found[0]).mean()), 5),
            network_rms=_figures(own)["rms"],
            network_bias=_figures(own)["bias"],
            network_lost=round(float(np.isnan(found[1]).mean()), 5),
            rms_bound=bounds[0],
            lost_bound=bounds[1],
        )
    )


def measure_solid(
    model: str, threshold: float, solid: ProbeSolid, has_directions: bool, rng: Rng, folder: Path
) -> Row:
    """One row: a closed solid, turned at random, reconstructed whole."""
    points, normals = solid.sample(CURVED_DENSITY, rng)
    turn, shift = random_rotation(rng).astype(np.float64), rng.uniform(0, 4, 3)
    scan = (points + rng.normal(0, CURVED_NOISE, points.shape)) @ turn.T + shift
    write_scan_ply(folder / "scan.ply", scan, normals @ turn.T if has_directions else None)
    config = ReconstructConfig(model=model, voxel_size=1.0, threshold=threshold)
    reconstruct(folder / "scan.ply", folder / "run", config, show_progress=False)
    vertices = (read_mesh(folder / "run" / "mesh.ply").vertices - shift) @ turn
    shutil.rmtree(folder / "run")
    places = solid.sample(1.0, rng)[0]
    places = places[solid.is_measured(places)]
    nearest = cKDTree(vertices).query(places)[0]
    return _told(
        Row(
            surface=solid.name,
            density=CURVED_DENSITY,
            noise=CURVED_NOISE,
            crops=1,
            feet=len(places),
            **_figures(solid.distance(vertices[solid.is_measured(vertices)])),
            lost=round(float((nearest > SEARCH).mean()), 5),
            network_rms=None,
            network_bias=None,
            network_lost=None,
            rms_bound=CURVED_BOUND,
            lost_bound=0.0,
        )
    )


def _figures(distances: Floats) -> dict[str, float]:
    return {
        "rms": round(float(np.sqrt((distances**2).mean())), 4),
        "bias": round(float(distances.mean()), 4),
        "largest": round(float(np.abs(distances).max()), 4),
    }


def _told(row: Row) -> Row:
    network = "" if row.network_rms is None else f"network {row.network_rms:6.3f} {row.network_bias:+6.3f}  "
    print(
        f"{row.surface:28} {row.density:4g} a face, noise {row.noise:4g}: rms {row.rms:6.3f} bias {row.bias:+6.3f} "
        f"lost {row.lost:6.1%} {network}{'pass' if row.passed else 'FAIL'}",
        file=sys.stderr,
        flush=True,
    )
    return row


def main() -> None:
    """Measure all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="packaged name or weights file")
    parser.add_argument("--threshold", type=float, default=0.5, help="occupancy probability at the surface")
    parser.add_argument("--repeats", type=int, default=4, help="crops for each angle")
    parser.add_argument("--quick", action="store_true", help="one crop for each angle")
    parser.add_argument("--directions", action="store_true", help="tell the network the points' normals")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the report")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    subject = load_network(given.model), given.threshold
    repeats = 1 if given.quick else given.repeats
    rng = np.random.default_rng(given.seed)
    rows = []
    for surfaces in slabs(rng, repeats):
        for noise in NOISES:
            for density in DENSITIES:
                bounds = (RMS_BOUND, 0.0) if density >= 4 else (SPARSE_BOUND, 1.0)
                rows.append(measure(*subject, surfaces, density, noise, bounds, given.directions, rng))
    bounds = (CURVED_BOUND, 0.0)
    for surfaces in shells(rng, repeats):
        rows.append(measure(*subject, surfaces, CURVED_DENSITY, CURVED_NOISE, bounds, given.directions, rng))
    with tempfile.TemporaryDirectory() as folder, ray_session("auto"):
        for solid in solids():
            rows.append(
                measure_solid(given.model, given.threshold, solid, given.directions, rng, Path(folder))
            )
    passed = sum(row.passed for row in rows)
    print(f"{passed} of {len(rows)} rows pass", file=sys.stderr)
    report = {
        "machine": machine(),
        "model": given.model,
        "threshold": given.threshold,
        "directions": given.directions,
        "passed": passed,
        "rows": [asdict(row) | {"passed": row.passed} for row in rows],
    }
    tell(report, given.json)
    sys.exit(passed < len(rows))


if __name__ == "__main__":
    main()
