"""End points of the published guided sampler, on a denoiser and a discriminator in closed form."""

from __future__ import annotations

import json
from collections import deque
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from genkit import component
from genkit.parts.vp_sde import VpSde, vp_mean
from genkit.sample import GuidedDenoiser, trajectory
from genkit.tensors import as_column
from genkit.types import Draws
from genkit_dg.boosting import BoostedDiscriminator
from genkit_dg.bound import BoundDiscriminator

FILE = Path(__file__).parents[2] / "data" / "dg_sampler.safetensors"
CASES = ["first_rho7", "first_rho90", "first_w1", "both_orders", "churned", "boosted", "unguided"]
PUBLISHED_RANGE = (0.0447, 152.2)
LIMIT = 1e-6


class Mixture(nn.Module):
    """The exact denoiser of an equal mixture of N(point, 0.25 I)."""

    def __init__(self, points):
        super().__init__()
        self.points, self.variance = points.flatten(1), 0.25

    def forward(self, x, sigma, labels):
        flat, total = x.double().flatten(1), self.variance + sigma.double()[:, None].square()
        distance = (flat[:, None] - self.points).square().sum(2)
        mean = torch.softmax(-distance / (2 * total), dim=1) @ self.points
        return (mean + self.variance / total * (flat - mean)).reshape(x.shape)


class Judge(nn.Module):
    """log(d / (1 - d)) = 0.1 <x_vp, direction> + 0.5 mean(sin(x_vp)) + t - 0.05."""

    def __init__(self, direction):
        super().__init__()
        self.direction, self.log_ratios = direction, []

    def forward(self, x, sigma, labels):
        scaled = (as_column(vp_mean(sigma), x) * x).flatten(1)
        linear = 0.1 * scaled @ self.direction + 0.5 * scaled.sin().mean(1)
        self.log_ratios.append((linear + VpSde().time(sigma) - 0.05).detach())
        return linear + VpSde().time(sigma) - 0.05


@pytest.fixture(scope="module")
def golden():
    with safe_open(FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["json"])["cases"]


def drawn(golden, name, items=slice(None), **changed):
    tensors, cases = golden
    case = {**cases[name], **changed}
    judge = Judge(tensors["direction"])
    kind = BoostedDiscriminator if case["boosting"] else BoundDiscriminator
    guidance = kind(judge, case["weight_first"], case["weight_second"])
    guidance.interval = PUBLISHED_RANGE
    step = count()
    latents = tensors["latents"][items]
    states = trajectory(
        GuidedDenoiser(Mixture(tensors["points"]), guidance=[guidance]),
        Draws(latents, None, lambda _: tensors["churn_noise"][next(step), items]),
        schedule=component("schedule", "edm", steps=case["num_steps"], rho=case["rho"]),
        solver=component(
            "solver", "heun", s_churn=case.get("S_churn", 0.0), s_noise=case.get("s_noise", 1.0)
        ),
    )
    return deque(states, maxlen=1)[0].x, judge


def error(found, expected):
    return float((found - expected).abs().max())


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_the_published_sampler(golden, name):
    assert error(drawn(golden, name)[0], golden[0][f"end.{name}"]) < LIMIT


def test_noise_of_boosting_has_the_published_deviation_of_1(golden):
    assert error(drawn(golden, "boosted", s_noise=1.5)[0], golden[0]["end.boosted"]) < LIMIT
    churned = golden[0]["end.churned"]
    assert error(drawn(golden, "churned", s_noise=1.5)[0], churned) > 1000 * LIMIT


def test_the_cases_can_tell_settings_apart(golden):
    boosted = golden[0]["end.boosted"]
    assert error(drawn(golden, "boosted", boosting=0)[0], boosted) > 1000 * LIMIT
    both = golden[0]["end.both_orders"]
    assert error(drawn(golden, "both_orders", weight_second=0.0)[0], both) > 1000 * LIMIT


def test_log_ratios_along_the_way_are_those_of_the_published_sampler(golden):
    _, judge = drawn(golden, "boosted")
    expected = golden[0]["log_ratio.boosted"]
    inside = expected < 1e7  # stands for a noise level outside of the range
    assert inside.sum() > 80
    assert error(torch.stack(judge.log_ratios)[inside].double(), expected[inside]) < LIMIT


def test_no_boosted_sample_depends_on_its_batch(golden):
    whole = drawn(golden, "boosted")[0]
    for items in ([3], [5, 0]):
        assert error(drawn(golden, "boosted", items)[0], whole[items]) < 1e-6
