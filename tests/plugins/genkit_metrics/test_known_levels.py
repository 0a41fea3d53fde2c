"""Metrics of trajectories keep to the noise levels that the network knows, and tell them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics.curvature import Curvature
from toy_sampling import Plain


@dataclass(frozen=True, kw_only=True)
class Lowered(Plain):
    """A network that knows the powers of 2^(1/32)."""

    def round_sigma(self, sigma):
        return torch.exp2((sigma.clamp(1e-9, 1e9).log2() * 32).round() / 32)


def test_curvature_is_of_the_rounded_levels(
    fake_context, edm_like, exact_gaussian, gaussian_denoiser
):
    gaussian_denoiser.preconditioner = Lowered()
    metric = Curvature(solver=exact_gaussian, schedule=edm_like, count=2)
    data = Batch(torch.zeros(2, 3))
    subject = subject_of(None, data, data, gaussian_denoiser)
    states = list(metric.solve(subject, fake_context(), range(2), edm_like))
    levels = list(metric.measure(subject, fake_context()).curves["curvature"].x)
    assert levels == [state.sigma for state in states[:-1]]
    expected = Lowered().round_sigma(edm_like.sigmas()[:-1])
    assert levels == pytest.approx(expected.tolist())
    assert levels != pytest.approx(edm_like.sigmas()[:-1].tolist())
