"""Ordinary differential equations: points carried along a velocity field, forward or backward in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from convonet.errors import NetworkError
from convonet.oflow.velocity import VelocityField
from foundation.errors import SettingError
from foundation.settings import check_choices


class IntegrationError(NetworkError):
    """A solver could not finish: the velocities are not finite, or too steep for its tolerances."""


@dataclass(frozen=True)
class SolverConfig:
    """How trajectories are integrated.

    Attributes:
        method: "dopri5" chooses its steps from the tolerances (Dormand and Prince 1980); "euler",
            "midpoint" and "rk4" (the 3/8 rule) take fixed steps.
        rtol: relative tolerance of dopri5.
        atol: absolute tolerance of dopri5, units of length.
        step_size: of the fixed-step methods, in durations of the sequence; None: one step from each
            requested time to the next.
        max_steps: dopri5 gives up after this many steps between two requested times.
        adjoint: gradients by the adjoint equation, whose memory does not grow with the number of steps
            (Chen et al. 2018), instead of through the solver's own operations.
    """

    method: Literal["dopri5", "euler", "midpoint", "rk4"] = "dopri5"
    rtol: float = 1e-3
    atol: float = 1e-5
    step_size: float | None = None
    max_steps: int = 10_000
    adjoint: bool = True

    def __post_init__(self) -> None:
        check_choices(self)
        if self.rtol <= 0 or self.atol <= 0:
            raise SettingError(f"rtol and atol must be positive, not {self.rtol} and {self.atol}")
        if self.step_size is not None and self.step_size <= 0:
            raise SettingError(f"step_size must be positive, not {self.step_size}")
        if self.step_size is not None and self.method == "dopri5":
            raise SettingError("dopri5 chooses its own steps: leave step_size unset")
        if self.max_steps < 1:
            raise SettingError(f"max_steps must be positive, not {self.max_steps}")


def integrate(derivative: nn.Module, state: Tensor, times: Tensor, solver: SolverConfig) -> Tensor:
    """Solve d(state)/dt = derivative(t, state).

    Args:
        derivative: called with a scalar time and a state; gives a tensor like the state.
        state: the state at `times[0]`, any shape.
        times: (T,) strictly increasing or decreasing.
        solver: method and tolerances.

    Returns:
        (T, *state.shape) states; the first is `state` itself.

    Raises:
        IntegrationError: if the solver cannot finish.
    """
    if len(times) == 1:
        return state.unsqueeze(0)
    options: dict[str, float] = {}
    if solver.method == "dopri5":
        options["max_num_steps"] = solver.max_steps
    elif solver.step_size is not None:
        options["step_size"] = solver.step_size
    from torchdiffeq import (
        odeint,
        odeint_adjoint,
    )  # brings half of SciPy, which other networks need not wait for

    solve = odeint_adjoint if solver.adjoint and torch.is_grad_enabled() else odeint
    try:
        states: Tensor = solve(
            derivative,
            state,
            times,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.method,
            options=options,
        )
    except AssertionError as error:  # torchdiffeq reports non-finite states and vanishing steps this way
        reason = str(error)[:200]
        raise IntegrationError(
            f"trajectories could not be integrated with {solver.method} ({reason}); check that weights and "
            "inputs are finite, loosen rtol and atol, or use a fixed-step method such as rk4"
        ) from error
    return states


class _MovingPoints(nn.Module):
    """Derivative of the flattened (B, 3 N + C + Z) state [points, code, latent] in the elapsed time.

    The codes travel in the state with derivative 0, so that the adjoint equation finds their gradients too.
    """

    def __init__(self, velocity: VelocityField, start: Tensor, direction: int) -> None:
        super().__init__()
        self.velocity = velocity
        self.start = start
        self.direction = direction

    def forward(self, elapsed: Tensor, state: Tensor) -> Tensor:
        code_size, latent_size = self.velocity.code_size, self.velocity.latent_size
        points_size = state.shape[1] - code_size - latent_size
        points, code, latent = torch.split(state, [points_size, code_size, latent_size], dim=1)
        times = self.start + self.direction * elapsed
        velocities = self.velocity(points.reshape(len(state), -1, 3), times, code, latent)
        moving = (self.direction * velocities).reshape(len(state), -1).to(state.dtype)
        return torch.cat([moving, torch.zeros_like(code), torch.zeros_like(latent)], dim=1)


@dataclass(frozen=True)
class Carrier:
    """A velocity field with its codes and solver: what carries points along.

    Attributes:
        velocity: the field.
        code: (B, C) temporal codes.
        latent: (B, Z) latent codes of the motion.
        solver: method and tolerances.
    """

    velocity: VelocityField
    code: Tensor
    latent: Tensor
    solver: SolverConfig

    def carry(self, points: Tensor, start: Tensor, elapsed: Tensor, direction: int) -> Tensor:
        """Positions after some time along the field.

        Every item of the batch may start at its own time; the solver runs once for all of them. Its error
        estimate is the mean over the whole state of the batch, codes included, as in the original.

        Args:
            points: (B, N, 3) positions at `start`.
            start: (B,) times.
            elapsed: (T,) durations >= 0, in any order, repeated or not.
            direction: 1 forward in time, -1 backward.

        Returns:
            (T, B, N, 3) positions at `start + direction * elapsed`.

        Raises:
            ValueError: if a duration is negative.
            IntegrationError: if the solver cannot finish.
        """
        if bool((elapsed < 0).any()):
            raise ValueError("durations must not be negative")
        zero = elapsed.new_zeros(1)
        durations, order = torch.unique(torch.cat([zero, elapsed]), sorted=True, return_inverse=True)
        state = torch.cat([points.reshape(len(points), -1), self.code, self.latent], dim=1)
        derivative = _MovingPoints(self.velocity, start.to(state.dtype), direction)
        states = integrate(derivative, state, durations.to(state.dtype), self.solver)
        moved = states[:, :, : points.shape[1] * 3].reshape(-1, *points.shape)
        return moved[order[1:]]
