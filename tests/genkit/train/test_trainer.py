"""One optimizer step: what it changes, and what it leaves alone when it must not go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from genkit.errors import Code, DataError, DivergedError
from genkit.interfaces import Objective, Optimizer
from genkit.random import derive_seed, generator, seeded
from genkit.train.by_quantile import BINS
from genkit.train.trainer import SMALLEST_SCALE, Compute, Trainer
from genkit.types import Batch
from genkit.world import SINGLE_PROCESS
from genkit_optim.adam import Adam, AdamW
from genkit_optim.ema import Ema
from genkit_optim.power_ema import PowerEma
from raising import raises_code

PLAIN = {
    "optimizer": Adam(learning_rate=1e-2),
    "average": Ema(half_life=100, ramp_up=0.0),
    "compute": Compute(),
}


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


@dataclass(frozen=True, kw_only=True)
class Unfused(Optimizer):
    """An optimizer of a plugin, which takes every step that it is asked for."""

    def build(self, parameters, terms):
        return torch.optim.RMSprop(parameters, self.learning_rate, momentum=0.9)


def network(dropout: float = 0.0) -> nn.Module:
    with seeded(7):
        return nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def trainer(objective=None, model=None, seed=0, **parts) -> Trainer:
    context = SimpleNamespace(
        device=torch.device("cpu"), world=SINGLE_PROCESS, seed=partial(derive_seed, seed)
    )
    return Trainer(
        context, model or network(), objective or Regression(), shape=(3,), **{**PLAIN, **parts}
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
        assert float(ours.step(items, noise)) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(weights(ours.model), weights(reference))


def test_micro_batches_accumulate_to_the_batch():
    whole, cut = trainer(), trainer(compute=Compute(micro_batch=10))
    for index in range(3):
        whole.step(*batch(index=index))
        cut.step(*batch(index=index))
    torch.testing.assert_close(weights(whole.model), weights(cut.model), atol=1e-5, rtol=1e-4)


def test_losses_by_quantile_are_those_of_the_items():
    ours = trainer(compute=Compute(micro_batch=10))
    expected = torch.zeros(2, BINS, dtype=torch.float64)
    for index in range(3):
        items, noise = batch(index=index)
        quantile = torch.rand(64, generator=generator(index), dtype=torch.float64)
        losses = Regression().loss(ours.model, items, noise, None).detach().double()
        bins = (quantile * BINS).long()
        for k in range(BINS):
            expected[:, k] += torch.stack([losses[bins == k].sum(), (bins == k).sum()])
        ours.step(replace(items, quantile=quantile), noise)
    torch.testing.assert_close(ours.by_quantile.sums(), expected, rtol=1e-5, atol=1e-5)


def test_the_learning_rate_rises_over_the_ramp():
    ramped = trainer(optimizer=Adam(learning_rate=1e-2, learning_rate_ramp=128))
    rates = []
    for index in range(4):
        ramped.step(*batch(index=index))
        rates.append(ramped.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0, 0.5e-2, 1e-2, 1e-2])


def test_the_gradient_is_clipped_only_when_asked():
    for limit, expected in ((None, 1e3), (0.5, 0.5)):
        ours = trainer(Regression(factor=1e6), optimizer=Adam(gradient_clip=limit))
        ours.step(*batch())
        norm = torch.stack([p.grad.norm() for p in ours.model.parameters()]).norm()
        assert float(norm) > expected if limit is None else float(norm) == pytest.approx(expected)


def test_the_learning_rate_falls_with_the_inverse_root_of_the_images():
    falling = trainer(
        optimizer=Adam(learning_rate=1e-2, learning_rate_ramp=128, learning_rate_decay=192)
    )
    rates = []
    for index in range(5):
        falling.step(*batch(index=index))
        rates.append(falling.optimizer.param_groups[0]["lr"])
    # After 0, 64, 128, 192 and 256 images.
    assert rates == pytest.approx([0, 0.5e-2, 1e-2, 1e-2, 1e-2 * (192 / 256) ** 0.5])


class OfManyTerms(Regression):
    """A loss whose epsilon is large enough to be seen: 1e-8 divided by 1e-5."""

    def terms(self, shape):
        assert shape == (3,)
        return 1e-5


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Adam(learning_rate=1e-2, beta2=0.9), partial(torch.optim.Adam, betas=(0.9, 0.9))),
        (
            AdamW(learning_rate=1e-2, weight_decay=0.5),
            partial(torch.optim.AdamW, weight_decay=0.5),
        ),
    ],
)
def test_settings_are_those_of_torch_and_epsilon_is_divided_by_the_terms(optimizer, expected):
    ours, reference = trainer(OfManyTerms(), optimizer=optimizer), network()
    adam = expected(reference.parameters(), lr=1e-2, eps=1e-3)
    for index in range(5):
        items, noise = batch(index=index)
        adam.zero_grad()
        (reference(noise) - items.data).square().mean().backward()
        adam.step()
        ours.step(items, noise)
    torch.testing.assert_close(weights(ours.model), weights(reference))


OPTIMIZERS = [Adam(learning_rate=1e-2), Unfused(learning_rate=1e-2)]


def broken(what: str, optimizer=OPTIMIZERS[0]) -> Trainer:
    """Return a trainer that made one good step, and then one that is not finite."""
    ours = trainer(optimizer=optimizer)
    ours.step(*batch())
    ours.before = weights(ours.model), [m.clone() for m in moments(ours)]
    items, noise = batch()
    if what == "loss":
        items.data[3] = float("inf")
    else:
        ours._loss._local._bound = InfiniteSlope()
    ours.step(items, noise)
    return ours


def moments(ours: Trainer) -> list[torch.Tensor]:
    return [t for moment in ours.optimizer.state.values() for t in moment.values()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing_and_is_told_at_the_next_reading(what, optimizer):
    ours = broken(what, optimizer)
    ours._loss._local._bound = Regression()
    for index in range(3):  # what follows before anyone looks changes nothing either
        ours.step(*batch(index=index))
    assert torch.equal(weights(ours.model), ours.before[0])
    assert all(torch.equal(a, b) for a, b in zip(moments(ours), ours.before[1], strict=True))
    assert weights(ours.average.model).isfinite().all()
    with raises_code(DivergedError, Code.DIVERGED, what, "64"):
        ours.mean_loss()


def test_a_loss_that_is_not_finite_counts_even_where_its_gradient_is_finite():
    class Ceiling(Regression):
        def loss(self, model, batch, noise, generator):
            return super().loss(model, batch, noise, generator) + float("inf")

    ours = trainer(Ceiling())
    before = weights(ours.model)
    ours.step(*batch())
    assert torch.equal(weights(ours.model), before)
    with raises_code(DivergedError, Code.DIVERGED, "loss", "inf", "0"):
        ours.mean_loss()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_diverged_is_not_saved(what):
    with pytest.raises(DivergedError):
        broken(what).state()


@pytest.mark.parametrize("where", ["weight", "average", "exp_avg_sq"])
def test_a_state_that_overflowed_although_its_gradients_are_finite_is_not_saved(where):
    ours = trainer(Regression())
    ours.step(*batch())
    found = {
        "weight": next(ours.model.parameters()),
        "average": next(ours.average.model.parameters()),
        "exp_avg_sq": ours.optimizer.state_dict()["state"][0]["exp_avg_sq"],
    }
    with torch.no_grad():
        found[where].view(-1)[0] = torch.inf
    with raises_code(DivergedError, Code.DIVERGED, where):
        ours.state()


def test_the_mean_loss_is_that_of_the_steps_since_it_was_read():
    ours = trainer()
    for count in (3, 1, 2):
        losses = [float(ours.step(*batch(index=index))) for index in range(count)]
        assert ours.mean_loss() == pytest.approx(sum(losses) / count, rel=1e-6)


class NoWaiting(TorchDispatchMode):
    """Raises where a number is read from a tensor, for which a GPU would have to be waited."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a number was read from a tensor")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "optimizer", [Adam(), Adam(gradient_clip=0.5), AdamW(), Unfused(gradient_clip=0.5)]
)
def test_a_step_waits_for_nothing(precision, optimizer):
    ours = trainer(
        model=network(0.5),
        optimizer=optimizer,
        average=PowerEma(),
        compute=Compute(precision=precision, micro_batch=16),
    )
    ours.step(*batch())  # the first of an optimizer that is not fused waits
    with NoWaiting():
        for index in range(3):
            ours.step(*batch(index=index))
    with NoWaiting(), pytest.raises(AssertionError, match="a number was read"):
        ours.mean_loss()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_and_keeps_float32_weights(precision):
    ours = trainer(compute=Compute(precision=precision))
    losses = [float(ours.step(*batch())) for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    assert {p.dtype for p in ours.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_float16_overflow_skips_the_step_and_lowers_the_scale(optimizer):
    half = Compute(precision="float16")
    ours = trainer(InfiniteSlope(), compute=half, optimizer=optimizer)
    before, scale = weights(ours.model), ours.scaler.get_scale()
    ours.step(*batch())
    assert torch.equal(weights(ours.model), before)
    assert ours.scaler.get_scale() < scale
    # What follows is as if the step had not been.
    ours._loss._local._bound = Regression()
    straight = trainer(compute=half, optimizer=optimizer)
    straight.scaler.load_state_dict(ours.scaler.state_dict())
    for one in (ours, straight):
        one.step(*batch())
    assert torch.equal(weights(ours.model), weights(straight.model))


def test_float16_gives_up_when_no_scale_helps():
    ours = trainer(InfiniteSlope(), compute=Compute(precision="float16"))
    ours.step(*batch())
    ours.mean_loss()
    ours.scaler.update(SMALLEST_SCALE)
    ours.step(*batch())
    with raises_code(DivergedError, Code.DIVERGED, "float16"):
        ours.mean_loss()


def images(index: int = 0) -> tuple[Batch, torch.Tensor]:
    drawn = torch.randn((2, 64, 3, 4, 4), generator=torch.Generator().manual_seed(index))
    return Batch(drawn[0]), drawn[1]


def convolutions() -> nn.Module:
    with seeded(7):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1)
        )


@pytest.mark.parametrize(
    ("change", "build", "items"),
    [
        ({}, lambda: network(0.5), batch),
        ({"compute": Compute(precision="float16")}, lambda: network(0.5), batch),
        ({"average": PowerEma(lengths=(0.05, 0.1))}, network, batch),
        ({"optimizer": Unfused()}, network, batch),
        # Adam's moments must come back in the layout of the weights.
        ({"compute": Compute(channels_last=True)}, convolutions, images),
    ],
)
def test_a_restored_trainer_goes_on_bit_for_bit(change, build, items):
    straight = trainer(model=build(), **change)
    for index in range(6):
        straight.step(*items(index=index))
        if index == 2:
            tensors, numbers = straight.state()
            tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    resumed = trainer(model=build(), **change)
    resumed.restore(tensors, numbers)
    for index in range(3, 6):
        resumed.step(*items(index=index))
    assert resumed.mean_loss() > 0
    for a, b in zip(straight.state()[0].values(), resumed.state()[0].values(), strict=True):
        assert torch.equal(a, b)


def test_dropout_follows_the_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    losses = []
    for seed in (0, 0, 1):
        losses.append(float(trainer(model=network(0.5), seed=seed).step(*batch())))
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

    ours = trainer(compute=Compute(channels_last=True), model=Watch(3, 3, 3, padding=1))
    images = torch.randn((2, 64, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    ours.step(Batch(images[0]), images[1])
    assert seen == [True]
    assert ours.model.weight.is_contiguous(memory_format=torch.channels_last)


def test_averages_of_several_lengths_follow_the_weights():
    ours = trainer(average=PowerEma(lengths=(0.05, 0.1)))
    for index in range(3):
        ours.step(*batch(index=index))
    short, long = (ours.average.state()[f"{length}:0.weight"] for length in (0.05, 0.1))
    now = ours.model[0].weight.detach()
    assert 0 < float((short - now).norm()) < float((long - now).norm())


def test_micro_batches_draw_dropout_by_their_place_in_the_batch():
    seen = []

    class Seeds(Regression):
        def loss(self, model, batch, noise, generator):
            seen.append((torch.initial_seed(), generator.initial_seed()))
            return super().loss(model, batch, noise, generator)

    trainer(Seeds(), compute=Compute(micro_batch=24)).step(*batch())
    assert seen == [
        (derive_seed(0, "dropout", 0, start), derive_seed(0, "loss", 0, start))
        for start in (0, 24, 48)
    ]


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_float16_gradient_is_clipped_at_its_own_size_not_at_that_of_the_scaled_loss(share):
    """By share of its norm: below 1 it is shortened to the limit, above 1 it stays."""

    def gradient(precision, clip):
        ours = trainer(optimizer=Adam(gradient_clip=clip), compute=Compute(precision=precision))
        ours.step(*batch())
        return torch.cat([p.grad.flatten() for p in ours.model.parameters()])

    whole = gradient("float32", None)
    limit = share * float(whole.norm())
    torch.testing.assert_close(
        gradient("float16", limit), whole * min(share, 1.0), atol=5e-4, rtol=1e-2
    )


def test_the_average_weighs_the_weights_of_each_step_by_the_images_since():
    """Against the closed form, with batches of different sizes."""
    half_life, counts = 150, (64, 32, 64, 16, 64)
    ours = trainer(average=Ema(half_life=half_life, ramp_up=0))
    history, seen = [weights(ours.model)], [0]
    for index, count in enumerate(counts):
        ours.step(*batch(count, index))
        history.append(weights(ours.model))
        seen.append(seen[-1] + count)
    # What is left of the past n images ago; the first weights stand for all of the past.
    left = [0.0, *(2 ** ((images - seen[-1]) / half_life) for images in seen)]
    expected = sum(
        (after - before) * values
        for before, after, values in zip(left, left[1:], history, strict=False)
    )
    torch.testing.assert_close(weights(ours.average.model), expected, atol=1e-7, rtol=1e-5)


def test_the_ramp_of_the_average_counts_the_images_seen_before_the_batch():
    ours = trainer(average=Ema(half_life=10**6, ramp_up=0.5))
    history = []
    for count in (64, 32, 48):
        ours.step(*batch(count))
        history.append(weights(ours.model))
    # After 0, 64 and 96 images the half-life is 0, 32 and 48: that of the batch, twice.
    expected = 0.25 * history[0] + 0.25 * history[1] + 0.5 * history[2]
    torch.testing.assert_close(weights(ours.average.model), expected, atol=1e-7, rtol=1e-5)


def test_a_plugins_optimizer_that_is_not_fused_trains_as_it_does_alone():
    ours, reference = trainer(optimizer=Unfused(learning_rate=1e-2)), network()
    alone = torch.optim.RMSprop(reference.parameters(), 1e-2, momentum=0.9)
    for index in range(5):
        items, noise = batch(index=index)
        alone.zero_grad()
        (reference(noise) - items.data).square().mean().backward()
        alone.step()
        ours.step(items, noise)
    torch.testing.assert_close(weights(ours.model), weights(reference))


def test_an_optimizer_keeps_tensors_alone():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.state[self.param_groups[0]["params"][0]]["steps"] = 1

    class Counts(Unfused):
        def build(self, parameters, terms):
            return Counting(parameters, self.learning_rate)

    with raises_code(DataError, Code.INVALID_RESULT, "Counts", "steps", "int"):
        trainer(optimizer=Counts()).step(*batch())
