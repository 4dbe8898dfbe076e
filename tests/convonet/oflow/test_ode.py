"""Trajectories against closed forms and another library; gradients of the adjoint equation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from convonet.oflow.ode import Carrier, IntegrationError, SolverConfig, integrate
from convonet.oflow.velocity import VelocityField

FINE = {
    "dopri5": SolverConfig("dopri5", rtol=1e-9, atol=1e-11),
    "rk4": SolverConfig("rk4", step_size=0.01),
    "midpoint": SolverConfig("midpoint", step_size=0.002),
    "euler": SolverConfig("euler", step_size=0.0005),
}
ERRORS = {"dopri5": 1e-8, "rk4": 1e-7, "midpoint": 2e-5, "euler": 5e-3}
"""What each may be off by for x' = A x over one unit of time, |A| about 2.5."""

MATRIX = [[-0.3, 1.9, 0.2], [-1.7, 0.1, 0.6], [0.4, -0.5, 0.2]]


class Linear(nn.Module):
    """x' = A x."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(MATRIX, dtype=torch.float64))

    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        return state @ self.matrix.T


def start_points() -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("adjoint", [True, False])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("method", FINE)
def test_a_linear_equation_follows_the_matrix_exponential(method: str, backward: bool, adjoint: bool) -> None:
    times = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64) * (-1 if backward else 1)
    system, start = Linear(), start_points()
    states = integrate(system, start, times, replace(FINE[method], adjoint=adjoint))
    exact = torch.stack([start @ torch.matrix_exp(time * system.matrix).T for time in times])
    assert states.shape == (4, 7, 3)
    assert (states - exact).abs().max() < ERRORS[method]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(method: str, order: int) -> None:
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    system, start = Linear(), start_points()
    exact = start @ torch.matrix_exp(system.matrix).T
    errors = []
    for step in (0.05, 0.025):
        solver = SolverConfig(method, step_size=step, adjoint=False)  # type: ignore[arg-type]
        errors.append(float((integrate(system, start, times, solver)[-1] - exact).abs().max().detach()))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


def test_the_error_of_dopri5_follows_its_tolerances() -> None:
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    system, start = Linear(), start_points()
    exact = start @ torch.matrix_exp(system.matrix).T
    for tolerance in (1e-3, 1e-5, 1e-7):
        solver = SolverConfig("dopri5", rtol=tolerance, atol=tolerance)
        error = (integrate(system, start, times, solver)[-1] - exact).abs().max()
        assert tolerance * 1e-4 < error < tolerance * 10


@pytest.mark.parametrize("method", FINE)
def test_the_adjoint_gives_the_gradients_of_the_plain_solver(method: str) -> None:
    times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    weights = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = []
    for adjoint in (True, False):
        system, start = Linear(), start_points().requires_grad_(True)
        states = integrate(system, start, times, replace(FINE[method], adjoint=adjoint))
        (states * weights).sum().backward()
        gradients.append((system.matrix.grad, start.grad))
    for by_adjoint, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(by_adjoint, plain, rtol=ERRORS[method] * 5, atol=ERRORS[method] * 5)


def smoothen(velocity: VelocityField) -> None:
    """Keep every hidden unit on one side of zero, so that no kink of a ReLU lies on a trajectory."""
    with torch.no_grad():
        for layer in (*velocity.fc_c, *velocity.fc_z, *velocity.blocks):
            for weight in [each.weight for each in layer.modules() if isinstance(each, nn.Linear)]:
                weight.mul_(0.1)
        for layer in (velocity.fc_p, *(block.fc_0 for block in velocity.blocks)):
            layer.bias.copy_(torch.where(torch.arange(len(layer.bias)) % 3 == 0, -6.0, 6.0))
        velocity.fc_out.weight.mul_(0.2)


def random_carrier(solver: SolverConfig, code: int = 4, latent: int = 3, batch: int = 2) -> Carrier:
    torch.manual_seed(4)
    velocity = VelocityField(code, latent, hidden=16, blocks=2).double()
    for parameter in velocity.parameters():
        nn.init.normal_(parameter, std=0.2)
    codes = torch.randn(batch, code + latent, dtype=torch.float64)
    return Carrier(velocity, codes[:, :code], codes[:, code:], solver)


def test_a_neural_field_is_followed_as_by_an_independent_solver() -> None:
    carrier = random_carrier(SolverConfig(rtol=1e-8, atol=1e-10, adjoint=False))
    points = start_points()[:5].expand(2, 5, 3).contiguous()
    start = torch.tensor([0.1, 0.5], dtype=torch.float64)
    elapsed = torch.tensor([0.3, 0.0, 0.8], dtype=torch.float64)
    for direction in (1, -1):
        ours = carrier.carry(points, start, elapsed, direction).detach()
        assert torch.equal(ours[1], points)
        for item in range(2):

            def derivative(time: float, flat: np.ndarray, item: int = item) -> np.ndarray:
                state = torch.tensor(flat).view(1, 5, 3)
                at = torch.tensor([time], dtype=torch.float64)
                code, latent = carrier.code[item : item + 1], carrier.latent[item : item + 1]
                with torch.no_grad():
                    return carrier.velocity(state, at, code, latent).numpy().ravel()

            begin = float(start[item])
            for row in (0, 2):
                end = begin + direction * float(elapsed[row])
                solved = solve_ivp(
                    derivative, (begin, end), points[item].numpy().ravel(), rtol=1e-9, atol=1e-11
                )
                theirs = torch.tensor(solved.y[:, -1]).view(5, 3)
                assert (theirs - points[item]).abs().max() > 0.05  # it moved
                torch.testing.assert_close(ours[row, item], theirs, rtol=0, atol=1e-5)


def test_the_adjoint_finds_the_gradients_of_codes_and_of_the_field() -> None:
    gradients = []
    for adjoint in (True, False):
        carrier = random_carrier(SolverConfig(rtol=1e-9, atol=1e-11, adjoint=adjoint))
        smoothen(carrier.velocity)  # steps over kinks make the plain gradient itself inexact
        code, latent = carrier.code.requires_grad_(True), carrier.latent.requires_grad_(True)
        points = start_points()[:4].expand(2, 4, 3).clone().requires_grad_(True)
        moved = Carrier(carrier.velocity, code, latent, carrier.solver).carry(
            points, points.new_zeros(2), points.new_tensor([0.5, 1.0]), 1
        )
        moved.square().sum().backward()
        leaves = [code, latent, points, *carrier.velocity.parameters()]
        gradients.append([leaf.grad for leaf in leaves])
    for by_adjoint, plain in zip(*gradients, strict=True):
        assert by_adjoint is not None and plain is not None and plain.abs().max() > 1e-4
        torch.testing.assert_close(by_adjoint, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", FINE)
def test_a_field_that_is_not_finite_is_reported(method: str) -> None:
    carrier = random_carrier(replace(FINE["rk4"], method="dopri5", step_size=None))
    nn.init.constant_(carrier.velocity.fc_out.bias, float("nan"))
    points = start_points().expand(2, 7, 3)
    with pytest.raises(IntegrationError, match="check that weights and inputs are finite"):
        carrier.carry(points, points.new_zeros(2), points.new_ones(1), 1)


def test_a_solver_that_cannot_keep_its_tolerance_gives_up() -> None:
    carrier = random_carrier(SolverConfig(rtol=1e-10, atol=1e-12, max_steps=3))
    points = start_points().expand(2, 7, 3)
    with pytest.raises(IntegrationError, match="max_num_steps exceeded"):
        carrier.carry(points, points.new_zeros(2), points.new_ones(1), 1)


def test_negative_durations_are_refused() -> None:
    points = start_points().expand(2, 7, 3)
    with pytest.raises(ValueError, match="must not be negative"):
        random_carrier(SolverConfig()).carry(points, points.new_zeros(2), -points.new_ones(1), 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "heun"}, "method must be one of"),
        ({"rtol": 0.0}, "must be positive"),
        ({"atol": -1.0}, "must be positive"),
        ({"method": "rk4", "step_size": 0.0}, "step_size must be positive"),
        ({"step_size": 0.1}, "dopri5 chooses its own steps"),
        ({"max_steps": 0}, "max_steps must be positive"),
    ],
)
def test_impossible_solvers_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SolverConfig(**wrong)
