"""Batches of training crops from analytic scenes; a function of (seed, step, rank)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocessing.analytic.scanning import choose_points, disturb
from preprocessing.analytic.scenes import TIE_BREAK, AnalyticScene, Seen, random_scene
from preprocessing.analytic.solids import Floats
from preprocessing.analytic.surface import is_seen, surface_points
from preprocessing.batches.seen_labels import SeenVoxels
from preprocessing.batches.training_batches import TrainingCrop, TrainingCrops
from preprocessing.rotations import random_rotation, turn_about_z


@dataclass(frozen=True)
class AnalyticConfig:
    """What an analytic crop looks like; lengths in voxels.

    Attributes:
        grid: side of a crop.
        queries: labeled queries of one crop.
        near_share: share of the queries within `near_reach` of the surface.
        near_reach: see above.
        context: distance from the border of a cut scene within which nothing is asked.
        dense_points: points on the surface of a scene, from which scans are drawn.
        uses: crops drawn from one scene, each with another scan of it.
        directions_share: share of the crops whose points carry directions.
        free_turns: share of the scenes turned uniformly over SO(3); the rest stay upright.
        quarter_turns: share of the upright ones turned by quarters; the others turn about z by any angle.
    """

    grid: int = 40
    queries: int = 8192
    near_share: float = 0.6
    near_reach: float = 1.75
    context: float = 6.0
    dense_points: int = 40_000
    uses: int = 4
    directions_share: float = 0.5
    free_turns: float = 0.7
    quarter_turns: float = 0.5


@dataclass(frozen=True)
class _Prepared:
    """A scene turned and moved into its crop, with all that its scans and labels need."""

    scene: AnalyticScene
    points: Floats  # in sight
    normals: Floats
    surface: Floats  # in sight or not, where queries gather
    seen: SeenVoxels | None  # where only what is in sight counts
    has_directions: bool


class AnalyticCrops:
    """Draws batches of crops; batch `step` of rank `rank` depends on the seed and on nothing else."""

    def __init__(self, config: AnalyticConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self._scenes: OrderedDict[tuple[int, int], _Prepared] = OrderedDict()

    def batch(self, step: int, batch_size: int, rank: int = 0) -> TrainingCrops:
        """Batch number `step`."""
        rng = np.random.default_rng([self.seed, step, rank, 1])
        crops: list[TrainingCrop] = []
        while len(crops) < batch_size:
            # Scenes come in a window that moves with the steps, so that each is met `uses` times on average.
            first = step * batch_size // self.config.uses
            number = first + int(rng.integers(2 * batch_size))
            crop = self._crop(self._scene(number, rank), rng)
            if crop is not None:
                crops.append(crop)
        return TrainingCrops.of_crops(crops, self.config.grid)

    def _scene(self, number: int, rank: int) -> _Prepared:
        key = (number, rank)
        if key not in self._scenes:
            self._scenes[key] = self._prepare(np.random.default_rng([self.seed, number, rank, 2]))
            while len(self._scenes) > 64:
                self._scenes.popitem(last=False)
        return self._scenes[key]

    def _prepare(self, rng: np.random.Generator) -> _Prepared:
        config = self.config
        while True:
            scene = random_scene(rng)
            has_directions = scene.needs_directions or rng.random() < config.directions_share
            if scene.up is not None and rng.random() < 0.4:
                has_directions = False  # the sides of sheets then follow the tie's rule
            is_free = rng.random() < config.free_turns and (scene.turns_freely or has_directions)
            angle = rng.uniform(0, 2 * np.pi)
            if rng.random() < config.quarter_turns:
                angle = rng.integers(4) * np.pi / 2
            turn = random_rotation(rng) if is_free else turn_about_z(float(angle))
            if scene.up is not None and not has_directions:
                turn = random_rotation(rng) if rng.random() < 0.5 else turn
                if float((turn @ scene.up) @ TIE_BREAK) < 0:
                    turn = (turn @ np.diag([1, -1, -1])).astype(np.float32)
            scene = scene.placed(turn, np.full(3, config.grid / 2, np.float32))
            points, normals = surface_points(scene.solid, config.grid, config.dense_points, rng)
            if len(points) < 200:
                continue
            surface, seen_voxels = points, None
            if scene.seen is Seen.FROM_STATIONS:
                seen = np.zeros(len(points), np.bool_)
                for station in scene.stations:
                    hidden = np.flatnonzero(~seen)
                    seen[hidden] = is_seen(scene.solid, points[hidden], normals[hidden], station)
                points, normals = points[seen], normals[seen]
                if len(points) < 200:
                    continue
                seen_voxels = SeenVoxels.of_points(points, config.grid)
            return _Prepared(scene, points, normals, surface, seen_voxels, has_directions)

    def _crop(self, prepared: _Prepared, rng: np.random.Generator) -> TrainingCrop | None:
        """One scan of a scene; None where too few points remain."""
        config, scene = self.config, prepared.scene
        origin = rng.uniform(0, config.grid, 3).astype(np.float32)
        if len(scene.stations):
            origin = scene.stations[rng.integers(len(scene.stations))]
        rows = choose_points(prepared.points, origin, rng)
        if len(rows) < 30:
            return None
        normals = prepared.normals[rows]
        directions = np.zeros_like(normals)
        if prepared.has_directions:
            directions = _directions(prepared.points[rows], normals, origin, rng)
        cloud = disturb(prepared.points[rows], normals, config.grid, rng)
        inside = ((cloud >= 0) & (cloud < config.grid)).all(axis=1)
        queries = self._queries(prepared, rng)
        distances = scene.label.distance(queries).astype(np.float32)
        if prepared.seen is not None:
            distances, is_certain = prepared.seen.labels(queries, distances)
            queries, distances = queries[is_certain], distances[is_certain]
        return TrainingCrop(cloud[inside], directions[inside], queries, distances, scene.sheet)

    def _queries(self, prepared: _Prepared, rng: np.random.Generator) -> Floats:
        config = self.config
        near = round(config.queries * config.near_share)
        middle = (config.queries - near) // 2
        around = prepared.surface[rng.integers(len(prepared.surface), size=near + middle)]
        offsets = rng.standard_normal(around.shape, dtype=np.float32)
        offsets[:near] /= np.linalg.norm(offsets[:near], axis=1, keepdims=True)
        offsets[:near] *= rng.uniform(0, config.near_reach, (near, 1)).astype(np.float32)
        offsets[near:] *= rng.uniform(1, 6, (middle, 1)).astype(np.float32)
        wanted = config.queries - near - middle
        uniform = rng.uniform(0, config.grid, (3 * wanted, 3)).astype(np.float32)
        # As many inside as outside, where there is so much: the insides of solids are small in a crop.
        is_inside = prepared.scene.label.distance(uniform) < 0
        inside, outside = uniform[is_inside][: wanted // 2], uniform[~is_inside]
        queries = np.concatenate([around + offsets, inside, outside[: wanted - len(inside)]])
        margin = config.context if prepared.scene.is_cut else 0.0
        kept = ((queries > margin) & (queries < config.grid - margin)).all(axis=1)
        return queries[kept]


def _directions(points: Floats, normals: Floats, origin: Floats, rng: np.random.Generator) -> Floats:
    """Unit vectors to the free side: normals or the way to a station, with errors, zero in some places."""
    if rng.random() < 0.3:
        towards = origin - points
        towards = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-6)
        towards *= np.where((towards * normals).sum(axis=1, keepdims=True) < 0, -1, 1)
    else:
        error = np.float32(rng.choice([0.0, 0.15, 0.4]))
        towards = normals + rng.standard_normal(normals.shape, dtype=np.float32) * error
        towards = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-6)
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 4))):
            center = points[rng.integers(len(points))]
            towards[((points - center) ** 2).sum(axis=1) < rng.uniform(2, 12) ** 2] = 0
    wrong = rng.random(len(points)) < rng.choice([0.0, 0.02, 0.1])
    towards[wrong] *= -1
    return np.asarray(towards, np.float32)


def analytic_source(path: Path, seed: int) -> AnalyticCrops:
    """The default crops, as `python -m convonet.fit --source` wants them; nothing is read from `path`."""
    del path
    return AnalyticCrops(AnalyticConfig(), seed)
