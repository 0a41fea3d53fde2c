"""One optimizer step: what it changes, and what it leaves alone when it must not go on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from genkit.errors import DivergedError
from genkit.interfaces import Objective
from genkit.random import derive_seed, seeded
from genkit.train.trainer import SMALLEST_SCALE, Optimization, Trainer
from genkit.types import Batch

PLAIN = Optimization(
    learning_rate=1e-2,
    learning_rate_ramp=0,
    gradient_clip=None,
    precision="float32",
    channels_last=False,
    micro_batch=64,
    ema_half_life=100,
    ema_ramp_up=0.0,
)


@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Squared distance between the model of the noise and the data."""

    factor: float = 1.0

    def loss(self, model, batch, noise, generator):
        return self.factor * (model(noise) - batch.data).float().square().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class InfiniteSlope(Objective):
    """A finite loss whose gradient is infinite: the root at 0."""

    def loss(self, model, batch, noise, generator):
        return (model(noise) * 0).abs().sqrt().flatten(1).mean(1)


def network(dropout: float = 0.0) -> nn.Module:
    with seeded(7):
        return nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def trainer(objective=None, how=PLAIN, model=None, seed=0) -> Trainer:
    return Trainer(
        model or network(),
        objective or Regression(),
        how,
        torch.device("cpu"),
        lambda *purpose: derive_seed(seed, *purpose),
    )


def batch(count: int = 64, index: int = 0) -> tuple[Batch, torch.Tensor]:
    drawn = torch.randn((2, count, 3), generator=torch.Generator().manual_seed(index))
    return Batch(drawn[0], quantile=torch.full((count,), 0.5, dtype=torch.float64)), drawn[1]


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_a_step_is_a_step_of_adam():
    ours, reference = trainer(), network()
    adam = torch.optim.Adam(reference.parameters(), lr=1e-2)
    for index in range(5):
        items, noise = batch(index=index)
        loss = (reference(noise) - items.data).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert ours.step(items, noise) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(weights(ours.model), weights(reference))


def test_micro_batches_accumulate_to_the_batch():
    whole, cut = trainer(), trainer(how=replace(PLAIN, micro_batch=10))
    for index in range(3):
        whole.step(*batch(index=index))
        cut.step(*batch(index=index))
    torch.testing.assert_close(weights(whole.model), weights(cut.model), atol=1e-5, rtol=1e-4)


def test_the_learning_rate_rises_over_the_ramp():
    ramped = trainer(how=replace(PLAIN, learning_rate_ramp=128))
    rates = []
    for index in range(4):
        ramped.step(*batch(index=index))
        rates.append(ramped.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0, 0.5e-2, 1e-2, 1e-2])


def test_the_gradient_is_clipped_only_when_asked():
    for limit, expected in ((None, 1e3), (0.5, 0.5)):
        ours = trainer(Regression(factor=1e6), replace(PLAIN, gradient_clip=limit))
        ours.step(*batch())
        norm = torch.stack([p.grad.norm() for p in ours.model.parameters()]).norm()
        assert float(norm) > expected if limit is None else float(norm) == pytest.approx(expected)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_anything_changes(what):
    ours = trainer(InfiniteSlope())
    items, noise = batch()
    if what == "loss":
        ours = trainer()
        items.data[3] = float("inf")
    before, averaged = weights(ours.model), weights(ours.ema.model)
    with pytest.raises(DivergedError, match=rf"the {what} is (nan|inf) at 0 images"):
        ours.step(items, noise)
    assert torch.equal(weights(ours.model), before)
    assert torch.equal(weights(ours.ema.model), averaged)
    assert not ours.optimizer.state
    assert (ours.images, ours.steps) == (0, 0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_and_keeps_float32_weights(precision):
    ours = trainer(how=replace(PLAIN, precision=precision))
    losses = [ours.step(*batch()) for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    assert {p.dtype for p in ours.model.parameters()} == {torch.float32}


def test_a_float16_overflow_skips_the_step_and_lowers_the_scale():
    ours = trainer(InfiniteSlope(), replace(PLAIN, precision="float16"))
    before, scale = weights(ours.model), ours.scaler.get_scale()
    ours.step(*batch())
    assert torch.equal(weights(ours.model), before)
    assert ours.scaler.get_scale() < scale


def test_float16_gives_up_when_no_scale_helps():
    ours = trainer(InfiniteSlope(), replace(PLAIN, precision="float16"))
    ours.step(*batch())
    ours.scaler.update(SMALLEST_SCALE)
    with pytest.raises(DivergedError, match="overflow at any scale"):
        ours.step(*batch())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_restored_trainer_goes_on_bit_for_bit(precision):
    how = replace(PLAIN, precision=precision)
    straight = trainer(how=how, model=network(0.5))
    for index in range(6):
        straight.step(*batch(index=index))
        if index == 2:
            tensors, numbers = straight.state()
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    resumed = trainer(how=how, model=network(0.5))
    resumed.restore(tensors, numbers)
    for index in range(3, 6):
        resumed.step(*batch(index=index))
    for a, b in zip(straight.state()[0].values(), resumed.state()[0].values(), strict=True):
        assert torch.equal(a, b)


def test_dropout_follows_the_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    losses = []
    for seed in (0, 0, 1):
        losses.append(trainer(model=network(0.5), seed=seed).step(*batch()))
        torch.rand(3)
    assert losses[0] == losses[1] != losses[2]
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_channels_last_lays_images_out_as_asked():
    seen = []

    class Watch(nn.Conv2d):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    ours = trainer(how=replace(PLAIN, channels_last=True), model=Watch(3, 3, 3, padding=1))
    images = torch.randn((2, 64, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    ours.step(Batch(images[0]), images[1])
    assert seen == [True]
    assert ours.model.weight.is_contiguous(memory_format=torch.channels_last)
