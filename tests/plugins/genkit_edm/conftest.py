from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
import scipy.optimize
import torch
from torch import Tensor

DATA = Path(__file__).parents[2] / "data"


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, file.metadata()


@pytest.fixture(scope="session")
def edm_golden() -> Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]:
    """Tensors and metadata of the reference's inputs and outputs, by the name of the file."""
    return read


EPSILON = 1e-3
"""Time of the lowest level of the VP SDE."""

RANGES = {"edm": (0.002, 80.0), "ve": (0.02, 100.0), "iddpm": (0.002, 81.0)}
"""Default ranges of noise levels in the reference; that of ``vp`` follows from its constants."""


def vp_sigma(t, beta_d, beta_min):
    return (0.5 * beta_d * t**2 + beta_min * t).expm1().sqrt()


def default_range(levels: str) -> tuple[float, float]:
    ends = torch.tensor([EPSILON, 1.0], dtype=torch.float64)
    return RANGES.get(levels) or tuple(vp_sigma(ends, 19.9, 0.1).tolist())


def betas(low: float, high: float) -> tuple[float, float]:
    """Return beta_d and beta_min with which the VP SDE goes from ``low`` to ``high``."""
    wanted = [math.log1p(low**2), math.log1p(high**2)]
    return tuple(np.linalg.solve([[EPSILON**2 / 2, EPSILON], [0.5, 1.0]], wanted).tolist())


def noise_levels(levels: str, steps: int, low: float, high: float, rho: float = 7.0) -> Tensor:
    """Return the ``[steps]`` noise levels above 0 of EDM's table 1, one formula after another."""
    part = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    if levels == "edm":
        ends = [end ** (1 / rho) for end in (high, low)]
        return (ends[0] + part * (ends[1] - ends[0])) ** rho
    if levels == "ve":
        return high * (low / high) ** part
    if levels == "vp":
        return vp_sigma(1 + part * (EPSILON - 1), *betas(low, high))
    # a(j) in float32, as in the reference; the recursion in float64.
    a = [(0.5 * math.pi * torch.tensor(j) / 1000 / 1.008).sin() ** 2 for j in range(1001)]
    table = [0.0]
    for j in range(1000, 0, -1):
        ratio = max(float(a[j - 1] / a[j]), float(torch.tensor(0.001)))
        table.append(math.sqrt((table[-1] ** 2 + 1) / ratio - 1))
    known = torch.tensor([u for u in reversed(table) if low <= u <= high], dtype=part.dtype)
    return known[(part * (len(known) - 1)).round().long()]


def solved(denoise, latents: Tensor, sigmas: Tensor, randn_like, **how) -> Tensor:
    """Return samples by EDM's general sampler, written for these tests from the paper's equations.

    The state y = s x and the time are those of the paper; derivatives are taken by automatic
    differentiation and times by root finding, so that no formula of genkit is repeated.

    Args:
        denoise: ``(x, sigma) -> D``.
        latents: unit noise.
        sigmas: noise levels above 0.
        randn_like: noise of a step; drawn in every step where there is churn.
        how: solver, schedule, scaling, alpha, range, S_churn, S_min, S_max and S_noise, under the
            reference's names; and ``nearest``, the level of the network nearest to another.
    """
    nearest = how.get("nearest", lambda sigma: sigma)
    schedule, churn = how.get("schedule", "linear"), how.get("S_churn", 0)
    beta = betas(*how["range"]) if schedule == "vp" else ()
    sigma_of = {
        "linear": lambda t: t,
        "ve": lambda t: t.sqrt(),
        "vp": lambda t: vp_sigma(t, *beta),
    }[schedule]
    s_of = (
        (lambda t: (1 + sigma_of(t) ** 2) ** -0.5)
        if how.get("scaling", "none") == "vp"
        else (lambda t: torch.ones_like(t))
    )

    def time_of(sigma):
        if schedule != "vp":
            return {"linear": sigma, "ve": sigma**2}[schedule]
        # Below its last zero B(t) has no level.
        start = max(0.0, -2 * beta[1] / beta[0])
        wanted = math.log1p(float(sigma) ** 2)
        root = scipy.optimize.brentq(
            lambda t: 0.5 * beta[0] * t**2 + beta[1] * t - wanted, start, 2.0, xtol=1e-16
        )
        return torch.tensor(root, dtype=torch.float64)

    def slope(y, t):
        sigma, s = sigma_of(t), s_of(t)
        d_sigma, d_s = (torch.func.grad(f)(t) for f in (sigma_of, s_of))
        score = (denoise(y / s, sigma) - y / s) / sigma**2
        return d_s / s * y - s * d_sigma * sigma * score

    times = [time_of(sigma) for sigma in sigmas] + [torch.tensor(0.0).double()]
    y = latents.double() * sigmas[0] * s_of(times[0])
    for i, (t, t_next) in enumerate(pairwise(times)):
        if churn:
            noise = randn_like(y)
            level, s = sigma_of(t), s_of(t)
            if how.get("S_min", 0) <= level <= float(how.get("S_max", math.inf)):
                lifted = nearest(level * (1 + min(churn / len(sigmas), math.sqrt(2) - 1)))
                t = time_of(lifted)
                added = (lifted**2 - level**2).sqrt() * how.get("S_noise", 1) * noise
                y = s_of(t) * (y / s + added)
        h, d = t_next - t, slope(y, t)
        if how.get("solver", "heun") == "heun" and i + 1 < len(sigmas):
            alpha = how.get("alpha", 1.0)
            other = slope(y + alpha * h * d, t + alpha * h)
            d = d + (other - d) / (2 * alpha)
        y = y + h * d
    return y


@pytest.fixture(scope="session")
def edm_sampler() -> SimpleNamespace:
    """EDM's noise levels and general sampler, independent of genkit's."""
    return SimpleNamespace(
        levels=noise_levels, solved=solved, default_range=default_range, betas=betas
    )
