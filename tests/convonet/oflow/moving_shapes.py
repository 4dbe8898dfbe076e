"""Small 4D shapes with exact occupancy and exact correspondences at every time."""

from dataclasses import dataclass

import torch
from torch import Tensor


def rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """(..., 3, 3) rotations by (...) angles about (3,) a unit axis."""
    x, y, z = axis.tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = angle[..., None, None]
    return torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)


@dataclass(frozen=True)
class RigidMotion:
    """x(t) = c + u t + R(w t) (x(0) - c).

    Attributes:
        center: (3,) c, the center at t = 0.
        shift: (3,) u, per unit of time.
        axis: (3,) unit axis of the rotation.
        angle: w, radians per unit of time.
    """

    center: Tensor
    shift: Tensor
    axis: Tensor
    angle: float

    def positions(self, first: Tensor, times: Tensor) -> Tensor:
        """(T, N, 3) positions at (T,) times of points (N, 3) of t = 0."""
        turned = (first - self.center) @ rotation(self.axis, times * self.angle).transpose(1, 2)
        return self.center + times[:, None, None] * self.shift + turned

    def velocities(self, points: Tensor, time: float) -> Tensor:
        """(N, 3) velocities at positions (N, 3) of the given time: u + w x (x - c - u t)."""
        arm = points - self.center - time * self.shift
        return self.shift + self.angle * torch.linalg.cross(self.axis.expand_as(arm), arm)


def box_surface(half: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) points on the surface of a box centered at 0."""
    points = (2 * torch.rand(count, 3, generator=generator) - 1) * half
    face = torch.randint(3, (count,), generator=generator)
    side = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    rows = torch.arange(count)
    points[rows, face] = side * half[face]
    return points


@dataclass(frozen=True)
class BendingEllipsoids:
    """A batch of pairs of ellipsoids that turn about the z axis, drift and bend.

    The whole of space moves by p(t) = T(t) B(t) p: first the bending shear z += t k (x^2 - 0.04), then a
    rotation by t w about z, then the shift t u. Each is invertible in closed form, so labels and
    trajectories are exact.

    Attributes:
        centers: (B, 2, 3) of the ellipsoids at t = 0.
        radii: (B, 2, 3) half axes.
        bend: (B,) k.
        turn: (B,) w, radians.
        shift: (B, 3) u.
    """

    centers: Tensor
    radii: Tensor
    bend: Tensor
    turn: Tensor
    shift: Tensor

    @classmethod
    def random(cls, batch: int, generator: torch.Generator) -> "BendingEllipsoids":
        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(batch, *shape, generator=generator)

        offset = torch.stack([uniform(0.15, 0.2), uniform(-0.03, 0.03), uniform(-0.05, 0.05)], dim=-1)
        return cls(
            centers=torch.stack([offset, -offset], dim=1),
            radii=uniform(0.1, 0.16, 2, 3),
            bend=uniform(0.5, 2.0),
            turn=uniform(0.6, 1.4),
            shift=uniform(-0.15, 0.15, 3),
        )

    def forward(self, first: Tensor, times: Tensor) -> Tensor:
        """Positions (B, N, 3) at (B,) times of points (B, N, 3) of t = 0."""
        times = times.view(-1, 1)
        x, y, z = first.unbind(-1)
        z = z + times * self.bend[:, None] * (x.square() - 0.04)
        cos, sin = torch.cos(times * self.turn[:, None]), torch.sin(times * self.turn[:, None])
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
        return turned + times[..., None] * self.shift[:, None]

    def backward(self, points: Tensor, times: Tensor) -> Tensor:
        """Where (B, N, 3) points at (B,) times were at t = 0."""
        times = times.view(-1, 1)
        x, y, z = (points - times[..., None] * self.shift[:, None]).unbind(-1)
        cos, sin = torch.cos(times * self.turn[:, None]), torch.sin(times * self.turn[:, None])
        x, y = cos * x + sin * y, cos * y - sin * x
        return torch.stack([x, y, z - times * self.bend[:, None] * (x.square() - 0.04)], dim=-1)

    def occupancy(self, points: Tensor, times: Tensor) -> Tensor:
        """(B, N) 0 or 1 at (B, N, 3) points and (B,) times."""
        first = self.backward(points, times)
        scaled = (first[:, None] - self.centers[:, :, None]) / self.radii[:, :, None]
        return (scaled.square().sum(-1) < 1).any(dim=1).float()

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        """(B, count, 3) points on the two ellipsoids at t = 0."""
        batch = len(self.bend)
        direction = torch.randn(batch, count, 3, generator=generator)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        which = torch.randint(2, (batch, count), generator=generator)
        rows = torch.arange(batch)[:, None]
        return self.centers[rows, which] + direction * self.radii[rows, which]

    def trajectories(self, first: Tensor, frames: int) -> Tensor:
        """(B, frames, N, 3) positions at equally spaced times from 0 to 1."""
        times = torch.linspace(0, 1, frames)
        return torch.stack([self.forward(first, time.expand(len(first))) for time in times], dim=1)
