"""What discriminator guidance leaves of an error of the denoiser, for Gaussian data.

Real data is N(m, S^2) and that of the denoiser N(m', S'^2), where S and S' commute. Denoiser and
best discriminator have closed forms, for independent noise and in the limit of optimal transport,
where the noise n is assigned to the image m + S n. Both are affine, and so is the map from a latent
to its sample: a few latents determine the law of the samples.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from genkit import Batch, component
from genkit.random import generator, seeded
from genkit.sample import GuidedDenoiser, trajectory
from genkit.types import DataSpec, Draws
from genkit_dg.bound import BoundDiscriminator
from genkit_dg.mlp_discriminator import MlpDiscriminator

STEPS, SIGMA_MAX, LIMIT = 64, 80.0, 0.02


@dataclass
class Law:
    """N(mean, spread^2) along each axis, and its noisy states.

    Attributes:
        mean: ``[axes]``.
        spread: ``[axes]`` standard deviations.
        assigned: whether the noise is assigned in the limit of optimal transport.
    """

    mean: Tensor
    spread: Tensor
    assigned: bool

    def noisy_spread(self, sigma: Tensor) -> Tensor:
        """Return the standard deviations ``[B, axes]`` of y + sigma n."""
        sigma = sigma[:, None]
        return self.spread + sigma if self.assigned else self.spread.hypot(sigma)

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        covariance = self.spread * (self.noisy_spread(sigma) if self.assigned else self.spread)
        return self.mean + covariance / self.noisy_spread(sigma).square() * (x - self.mean)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        spread = self.noisy_spread(sigma)
        return (-((x - self.mean) / spread).square() / 2 - spread.log()).sum(1)


class Denoiser(nn.Module):
    def __init__(self, fake: Law, axes: Tensor) -> None:
        super().__init__()
        self.fake, self.axes = fake, axes

    def forward(self, x: Tensor, sigma: Tensor, labels: None) -> Tensor:
        x, sigma = x.double(), sigma.double()
        return self.fake.denoised(x @ self.axes, sigma) @ self.axes.T


class Best(nn.Module):
    """log(p_real / p_fake)."""

    def __init__(self, real: Law, fake: Law, axes: Tensor) -> None:
        super().__init__()
        self.real, self.fake, self.axes = real, fake, axes

    def forward(self, x: Tensor, sigma: Tensor, labels: None) -> Tensor:
        x, sigma = x.double() @ self.axes, sigma.double()
        return self.real.log_density(x, sigma) - self.fake.log_density(x, sigma)


def law_of_samples(real: Law, fake: Law, axes: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviations of the samples along the axes."""
    count = len(axes)
    # Both signs and 0: the law follows from their ends, and that the map is affine can be seen.
    unit = torch.cat([torch.zeros(1, count), torch.eye(count), -torch.eye(count)]).double()
    guidance = BoundDiscriminator(Best(real, fake, axes), weight, weight)
    states = trajectory(
        GuidedDenoiser(Denoiser(fake, axes), guidance=[guidance]),
        Draws(unit @ axes.T, None, torch.randn_like),
        schedule=component("schedule", "edm", steps=STEPS, sigma_max=SIGMA_MAX),
        solver=component("solver", "heun"),
        start="corrected-twice" if fake.assigned else "noise",
    )
    ends = deque(states, maxlen=1)[0].x @ axes
    mean, plus, minus = ends[0], ends[1 : 1 + count], ends[1 + count :]
    assert_close((plus + minus) / 2, mean.expand(count, count), rtol=1e-4, atol=1e-4)
    return mean, (plus - mean).norm(dim=0)


def left(dimensions: int, assigned: bool, weight: float) -> tuple[list[float], list[float]]:
    """Return the shares of the mean error and of the log-spread error that are left, by axis."""
    angle = torch.tensor(0.6, dtype=torch.float64)
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    axes = turned if dimensions == 2 else torch.ones(1, 1, dtype=torch.float64)

    def law(mean: tuple[float, ...], spread: tuple[float, ...]) -> Law:
        values = (torch.tensor(v[:dimensions], dtype=torch.float64) for v in (mean, spread))
        return Law(*values, assigned)

    centre, shifted, spread, wide = (0.0, 0.0), (0.3, -0.2), (1.0, 0.5), (1.3, 0.4)
    real, fake = law(shifted, spread), law(centre, spread)
    mean, _ = law_of_samples(real, fake, axes, weight)
    shift = (real.mean - mean) / (real.mean - fake.mean)
    real, fake = law(centre, spread), law(centre, wide)
    _, found = law_of_samples(real, fake, axes, weight)
    width = (found / real.spread).log() / (fake.spread / real.spread).log()
    return shift.tolist(), width.tolist()


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize(
    ("assigned", "weight", "mean", "spread"),
    [
        (False, 0.0, 1.0, 1.0),
        (False, 1.0, 0.0, 0.0),
        (True, 0.0, 1.0, 1.0),
        (True, 1.0, 0.5, 0.0),
        (True, 2.0, 0.0, None),
    ],
    ids=["none", "independent", "OT, none", "OT", "OT, twice"],
)
def test_share_of_the_error_that_is_left(dimensions, assigned, weight, mean, spread):
    means, spreads = left(dimensions, assigned, weight)
    assert means == pytest.approx([mean] * dimensions, abs=LIMIT)
    if spread is not None:
        assert spreads == pytest.approx([spread] * dimensions, abs=LIMIT)


def trained(real: tuple[float, float], fake: tuple[float, float]) -> nn.Module:
    """Return a discriminator of two 1-D Gaussians, given as (mean, standard deviation)."""
    count, steps = 256, 2000
    with seeded(0):
        network = MlpDiscriminator(width=64, blocks=2, dropout=0.0).build(DataSpec((1,)))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    objective = component("objective", "discrimination")
    draw = generator(0, "training")
    realness = torch.arange(count) % 2
    laws = torch.tensor([fake, real])[realness]
    for _ in range(steps):
        items = laws[:, :1] + laws[:, 1:] * torch.randn(count, 1, generator=draw)
        quantile = torch.rand(count, generator=draw, dtype=torch.float64)
        batch = Batch(items, realness=realness, quantile=quantile)
        noise = torch.randn(count, 1, generator=draw)
        optimizer.zero_grad()
        objective.loss(network, batch, noise, draw).mean().backward()
        optimizer.step()
        decay.step()
    return network.eval()


@pytest.mark.slow
def test_a_trained_discriminator_leaves_at_most_a_quarter_of_both_errors():
    """Independent noise, weight 1 and the default range of noise levels."""
    wide, one = torch.tensor([1.3]).double(), torch.ones(1, 1).double()
    fake = Law(torch.zeros(1).double(), wide, assigned=False)
    unit = torch.randn(2000, 1, generator=generator(0, "latents"), dtype=torch.float64)
    guidance = BoundDiscriminator(trained((0.3, 1.0), (0.0, 1.3)), 1.0, 1.0)
    guidance.interval = (0.05, 20.0)
    states = trajectory(
        GuidedDenoiser(Denoiser(fake, one), guidance=[guidance]),
        Draws((unit - unit.mean()) / unit.std(), None, torch.randn_like),
        schedule=component("schedule", "edm", steps=STEPS, sigma_max=SIGMA_MAX),
        solver=component("solver", "heun"),
    )
    ends = deque(states, maxlen=1)[0].x
    assert abs(0.3 - float(ends.mean())) / 0.3 <= 0.25
    assert abs(float(ends.std().log() / wide.log())) <= 0.25
