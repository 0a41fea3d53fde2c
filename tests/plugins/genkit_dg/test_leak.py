"""Whether assigned noise alone tells real from generated items, before any network is trained."""

from __future__ import annotations

import pytest
import torch

import genkit
from genkit.random import generator
from genkit.types import Batch

POOL, POOLS = 512, 16
SOURCES = torch.arange(POOL) % 2
"""Real items, 1, and fakes, 0, in turn."""

LABELS = torch.arange(POOL) // 2 % 2
"""Two classes of each source."""


def assigned(coupler, *, apart_by_class=False):
    """Return the noise of pools of two Gaussians of deviation 0.5 whose means are a unit apart."""
    draw = generator(0, "items")
    means = torch.stack([SOURCES - 0.5, (LABELS - 0.5) * apart_by_class], dim=1)
    noises = []
    for index in range(POOLS):
        data = means + 0.5 * torch.randn(POOL, 2, generator=draw)
        noise = torch.randn(POOL, 2, generator=draw)
        pairs = coupler.pair(Batch(data, LABELS, SOURCES), noise, generator(index, "pool"))
        noises.append(noise[pairs.noise[pairs.data.argsort()]])
    return torch.stack(noises)


def accuracy(noise, wanted):
    """Return the share of held-out noises of which a linear classifier finds the group."""
    inputs = torch.cat([noise, torch.ones(POOLS, POOL, 1)], dim=2).double()
    targets = (2.0 * wanted - 1).expand(POOLS, -1)[..., None].double()
    half = POOLS // 2
    seen, unseen = inputs[:half].flatten(0, 1), inputs[half:].flatten(0, 1)
    weights = torch.linalg.lstsq(seen, targets[:half].flatten(0, 1)).solution
    return float(((unseen @ weights > 0) == (targets[half:].flatten(0, 1) > 0)).double().mean())


def partitioned(*by):
    return genkit.component("coupler", "partitioned", by=[*by])


def test_noise_of_joint_pairs_tells_real_from_fake():
    assert accuracy(assigned(genkit.component("coupler", "hungarian")), SOURCES) > 0.75


def test_noise_of_pairs_inside_the_sources_does_not():
    found = accuracy(assigned(partitioned("realness")), SOURCES)
    assert found == pytest.approx(0.5, abs=0.03)


def test_noise_of_pairs_inside_sources_and_classes_tells_neither():
    noise = assigned(partitioned("realness", "label"), apart_by_class=True)
    for group in (SOURCES, LABELS, SOURCES ^ LABELS):
        assert accuracy(noise, group) == pytest.approx(0.5, abs=0.03)


def test_noise_of_pairs_inside_the_sources_tells_classes():
    # So that a class-conditional discriminator requires pairs inside each class too.
    noise = assigned(partitioned("realness"), apart_by_class=True)
    assert accuracy(noise, LABELS) > 0.75
