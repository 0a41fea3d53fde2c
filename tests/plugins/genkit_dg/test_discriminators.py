from __future__ import annotations

import pytest
import torch

from genkit.errors import Code, DataError
from genkit.random import generator, seeded
from genkit.testing import check_component, check_discriminator
from genkit.types import DataSpec
from genkit_dg.mlp_discriminator import MlpDiscriminator
from genkit_dg.scratch import ScratchDiscriminator
from raising import raises_code

CASES = [
    (ScratchDiscriminator(channels=8), DataSpec((1, 8, 8), classes=3)),
    (ScratchDiscriminator(channels=6, multipliers=(1, 3), blocks=2), DataSpec((3, 9, 7))),
    (MlpDiscriminator(width=16), DataSpec((1, 8, 8), classes=3)),
    (MlpDiscriminator(width=16, blocks=1), DataSpec((2,))),
]


@pytest.mark.parametrize(("settings", "spec"), CASES)
def test_laws_hold(settings, spec):
    check_component(type(settings))
    check_discriminator(settings, spec)


@pytest.mark.parametrize(("settings", "spec"), CASES)
def test_sees_the_noise_level(settings, spec):
    with seeded(0):
        network = settings.build(spec).eval()
    x = torch.zeros(2, *spec.shape)  # so that only the embedding can differ
    low, high = network(x, torch.tensor([0.1, 10.0]), None).tolist()
    assert abs(low - high) > 1e-3


@pytest.mark.parametrize("cls", [ScratchDiscriminator, MlpDiscriminator])
def test_sees_the_class_only_if_told_to(cls):
    spec = DataSpec((1, 8, 8), classes=2)
    x, sigma = torch.zeros(2, 1, 8, 8), torch.ones(2)
    for told in (False, True):
        with seeded(0):
            network = cls(class_conditional=told).build(spec).eval()
        first, second = network(x, sigma, torch.tensor([0, 1])).tolist()
        assert (abs(first - second) > 1e-3) == told


@pytest.mark.parametrize("cls", [ScratchDiscriminator, MlpDiscriminator])
def test_labels_must_be_there_if_the_class_is_given(cls):
    with raises_code(DataError, Code.MISSING_ATTRIBUTE):
        cls(class_conditional=True).build(DataSpec((1, 8, 8)))
    network = cls(class_conditional=True).build(DataSpec((1, 8, 8), classes=2))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE):
        network(torch.zeros(1, 1, 8, 8), torch.ones(1), None)


@pytest.mark.parametrize("shape", [(2,), (1, 3, 8)])
def test_convolutions_need_images_that_can_be_halved(shape):
    with raises_code(DataError, Code.WRONG_SHAPE, "4x4"):
        ScratchDiscriminator().build(DataSpec(shape))


def test_a_resolution_must_be_given():
    assert not list(ScratchDiscriminator().check({}))
    (problem,) = ScratchDiscriminator(multipliers=()).check({})
    assert problem.key == ("multipliers",)


@pytest.mark.parametrize(
    "settings", [ScratchDiscriminator(channels=16), MlpDiscriminator(width=32)]
)
def test_learns_to_tell_two_distributions_apart(settings):
    draw = generator(0, "data")
    with seeded(0):
        network = settings.build(DataSpec((1, 4, 4)))
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(40):
            real = torch.arange(64) % 2
            x = torch.randn(64, 1, 4, 4, generator=draw) * (0.3 + 0.7 * real[:, None, None, None])
            logit = network(x, torch.full((64,), 0.1))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, real.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss < 0.4
