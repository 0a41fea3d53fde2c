from __future__ import annotations

import math

import pytest
import torch

from genkit.errors import Code, SettingError
from genkit.types import DataSpec
from genkit_data.points import Moons, SwissRoll
from raising import raises_code

BOTH = pytest.mark.parametrize("cls", [SwissRoll, Moons])


@BOTH
def test_scale(cls, inputs):
    data = cls().load(inputs).data
    assert data.shape == (10_000, 2)
    assert data.dtype == torch.float32
    assert data.abs().max() < 1.1
    assert data.std() == pytest.approx(0.5, abs=0.05)


@BOTH
def test_the_seed_chooses_the_points(cls, inputs):
    state = torch.get_rng_state()
    first, again, other = (cls(items=50, seed=s).load(inputs).data for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@BOTH
def test_noise_moves_points_by_its_standard_deviation(cls, inputs):
    clean, noisy = (cls(noise=noise).load(inputs).data for noise in (0.0, 0.1))
    assert (noisy - clean).std() == pytest.approx(0.1, rel=0.03)


def test_swiss_roll_is_a_spiral(inputs):
    assert SwissRoll().spec() == DataSpec((2,))
    batch = SwissRoll(noise=0).load(inputs)
    radius = batch.data.norm(dim=1)
    angle = radius * 4.5 * math.pi
    assert batch.labels is None
    assert (radius.min(), radius.max()) == (
        pytest.approx(1 / 3, abs=1e-3),
        pytest.approx(1, abs=1e-3),
    )
    expected = torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None]
    torch.testing.assert_close(batch.data, expected, atol=1e-4, rtol=0)


def test_moons_are_two_half_circles(inputs):
    assert Moons().spec() == DataSpec((2,), classes=2)
    batch = Moons(noise=0).load(inputs)
    assert batch.labels.bincount().tolist() == [5000, 5000]
    centres = torch.tensor([[-0.5, -0.25], [0.5, 0.25]])[batch.labels]
    offset = batch.data * 1.5 - centres
    torch.testing.assert_close(offset.norm(dim=1), torch.ones(10_000))
    # The first opens downwards, the second upwards.
    assert (offset[:, 1] * (1 - 2 * batch.labels)).min() >= -1e-6


@pytest.mark.parametrize("wrong", [{"items": 0}, {"noise": -0.1}, {"noise": 2.0}, {"seed": -1}])
def test_settings_out_of_range(wrong):
    with raises_code(SettingError, Code.OUT_OF_RANGE):
        Moons(**wrong)
