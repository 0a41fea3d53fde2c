"""Flow matching as a denoiser: its loss, its path and its steps against their closed forms."""

from __future__ import annotations

from itertools import pairwise

import scipy.stats
import torch
from torch import Tensor, nn

from genkit.interfaces import Preconditioned
from genkit.sample import denoise_fn
from genkit.testing import ClosedForm
from genkit.types import Batch
from genkit_edm.denoising import Denoising
from genkit_edm.edm import LogNormal
from genkit_edm.flow import FlowDistribution, FlowPreconditioner, FlowSchedule
from genkit_edm.solvers.heun import Euler, Heun


class Velocity(nn.Module):
    """Some smooth velocity field v(x_t, t), in float64 as it stands."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return torch.sin(2 * x + 3 * t[:, None]) - x * t[:, None]


MODEL = Preconditioned(Velocity(), FlowPreconditioner())


def test_the_loss_is_conditional_flow_matching() -> None:
    """Torchcfm: x_0 noise, x_1 data, x_s = s x_1 + (1 - s) x_0, target x_1 - x_0; here t = 1 - s.

    The velocity along s is minus the velocity along t, and their squared errors are equal.
    """
    g = torch.Generator().manual_seed(0)
    data = torch.rand((64, 5), generator=g) * 2 - 1
    noise = torch.randn((64, 5), generator=g)
    u = torch.rand(64, generator=g, dtype=torch.float64)
    objective = Denoising(noise_distribution=FlowDistribution())
    found = objective.loss(MODEL, Batch(data, quantile=u), noise, g)

    s = (1 - (1e-5 + u * (1 - 2e-5))).float()
    x_s = s[:, None] * data + (1 - s[:, None]) * noise
    velocity = -Velocity()(x_s, 1 - s, None)
    expected = (velocity - (data - noise)).square().mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    middle = (s > 0.01) & (s < 0.99)  # nearer to the ends float32 rounds more
    torch.testing.assert_close(found[middle], expected[middle], rtol=1e-4, atol=1e-6)


def test_the_denoiser_is_the_state_less_its_way() -> None:
    x = torch.tensor([[3.0, -1.0], [0.2, 0.4]], dtype=torch.float64)
    sigma = torch.tensor([3.0, 0.25], dtype=torch.float64)
    t, x_t = torch.tensor([0.75, 0.2], dtype=torch.float64), x / (1 + sigma[:, None])
    expected = x_t - t[:, None] * Velocity()(x_t, t, None)
    torch.testing.assert_close(MODEL(x, sigma), expected)


def exact(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser in float64: the driver would narrow the network's input to float32."""
    return MODEL(x, sigma.expand(len(x)))


def states(solver: Euler | Heun, sigmas: Tensor, x: Tensor) -> Tensor:
    """Return the states of a solver on the flow's path, ``[steps + 1, *x.shape]``."""
    found = solver.solve(ClosedForm(exact), x, sigmas, torch.randn_like)
    return torch.stack([state.x / (1 + state.sigma) for state in found])


def test_euler_in_sigma_is_euler_in_time() -> None:
    sigmas = FlowSchedule(steps=7).sigmas()
    times = sigmas / (1 + sigmas)
    x_t = torch.tensor([[0.3, -1.2], [2.0, 0.7]], dtype=torch.float64)
    start = x_t * (1 + sigmas[0])
    expected = [x_t]
    for t, t_next in pairwise(times):
        x_t = x_t + (t_next - t) * Velocity()(x_t, t.expand(2), None)
        expected.append(x_t)
    for path in ("linear", "flow"):
        found = states(Euler(path=path), sigmas, start)
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-10)


def test_the_midpoint_on_the_path_of_flow_is_the_midpoint_in_time() -> None:
    sigmas = FlowSchedule(steps=6).sigmas()
    times = sigmas / (1 + sigmas)
    x_t = torch.tensor([[0.3, -1.2], [2.0, 0.7]], dtype=torch.float64)
    found = states(Heun(path="flow", alpha=0.5), sigmas, x_t * (1 + sigmas[0]))
    for k, (t, t_next) in enumerate(pairwise(times[:-1]), 1):
        h = t_next - t
        middle = x_t + h / 2 * Velocity()(x_t, t.expand(2), None)
        x_t = x_t + h * Velocity()(middle, (t + h / 2).expand(2), None)
        torch.testing.assert_close(found[k], x_t, rtol=1e-10, atol=1e-10)


def test_times_are_uniform() -> None:
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    sigma = FlowDistribution(eps_t=0.1).quantile(u)
    torch.testing.assert_close(sigma / (1 + sigma), 0.1 + 0.8 * u)


def test_logit_normal_times_are_log_normal_levels() -> None:
    u = torch.linspace(0.001, 0.999, 11, dtype=torch.float64)
    sigma = LogNormal(p_mean=0.3, p_std=1.4).quantile(u)
    logit = torch.special.logit(sigma / (1 + sigma)).numpy()
    expected = scipy.stats.norm.ppf(u.numpy(), loc=0.3, scale=1.4)
    torch.testing.assert_close(torch.from_numpy(logit), torch.from_numpy(expected))


def test_the_driver_calls_it_like_any_denoiser() -> None:
    denoise = denoise_fn(MODEL)
    x = torch.ones(2, 3, dtype=torch.float64)
    sigma = torch.tensor(1.5, dtype=torch.float64)
    torch.testing.assert_close(denoise(x, sigma), exact(x, sigma), rtol=1e-5, atol=1e-5)
