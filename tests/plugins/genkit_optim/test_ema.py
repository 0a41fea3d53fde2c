"""The averaged weights against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genkit_optim.ema import Ema


def scalar(value: float) -> nn.Module:
    layer = nn.BatchNorm1d(1)
    nn.init.constant_(layer.weight, value)
    return layer


def test_half_of_the_old_weight_is_left_after_a_half_life():
    model = scalar(0.0)
    ema = Ema(half_life=1000, ramp_up=0).build(model)
    nn.init.constant_(model.weight, 1.0)
    for step in range(10):
        ema.update(model, images=step * 100, batch_size=100)
    assert float(ema.model.weight.detach()) == pytest.approx(0.5, abs=1e-6)


def test_the_ramp_limits_the_half_life_to_a_share_of_the_images_seen():
    ema = Ema(half_life=500_000, ramp_up=0.05)
    assert ema.decay(images=0, batch_size=256) == 0
    assert ema.decay(images=100_000, batch_size=5000) == pytest.approx(0.5)
    assert ema.decay(images=10**9, batch_size=500_000) == pytest.approx(0.5)


def test_no_half_life_follows_at_once():
    model = scalar(0.0)
    ema = Ema(half_life=0, ramp_up=0).build(model)
    nn.init.constant_(model.weight, 3.0)
    ema.update(model, images=100, batch_size=10)
    assert float(ema.model.weight.detach()) == 3


def test_buffers_are_copied_and_the_model_is_left_alone():
    model = scalar(2.0)
    ema = Ema(half_life=1000, ramp_up=0).build(model)
    model.running_mean.fill_(7.0)
    ema.update(model, images=0, batch_size=1)
    assert float(ema.model.running_mean) == 7
    assert float(model.weight.detach()) == 2
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert torch.is_grad_enabled()
