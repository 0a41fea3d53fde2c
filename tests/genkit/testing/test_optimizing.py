"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch

from genkit import interfaces, testing
from raising import breaks


@dataclass(frozen=True, kw_only=True)
class Optimizer(interfaces.Optimizer):
    """Sound: gradient descent with momentum."""

    def build(self, parameters, terms):
        return torch.optim.SGD(parameters, self.learning_rate, momentum=0.9)


class Rising(Optimizer):
    def rate(self, images):
        return self.learning_rate * (1 + images)


class Forgetful(Optimizer):
    def build(self, parameters, terms):
        return super().build(parameters[1:], terms)


class Resting(Optimizer):
    def build(self, parameters, terms):
        return torch.optim.SGD(parameters, 0.0)


class Hidden(Optimizer):
    """Keeps its momentum outside of the state."""

    def build(self, parameters, terms):
        class Momentum(torch.optim.SGD):
            sums = 0

            def step(self, closure=None):
                self.sums += 1
                self.param_groups[0]["lr"] = 1 / self.sums
                super().step(closure)

        return Momentum(parameters, self.learning_rate)


@pytest.mark.parametrize(
    ("cls", "law"),
    [
        (Rising, "rate-range"),
        (Forgetful, "all-parameters"),
        (Resting, "step-changes"),
        (Hidden, "resumes"),
    ],
)
def test_a_broken_law_of_optimizers_is_named(cls, law):
    testing.check_optimizer(Optimizer())
    with breaks(law):
        testing.check_optimizer(cls())


class Running(interfaces.RunningAverage):
    """Sound: half of the way at each update."""

    share = 0.5

    def __init__(self, model):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model, images, batch_size):
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, self.share)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


class Shared(Running):
    def __init__(self, model):
        self.model = model


class Beyond(Running):
    share = 1.5


class Buffered(Running):
    def update(self, model, images, batch_size):
        before = [buffer.clone() for buffer in self.model.buffers()]
        super().update(model, images, batch_size)
        for mine, old in zip(self.model.buffers(), before, strict=True):
            mine.copy_(old)


class Elsewhere(Running):
    def __init__(self, model):
        super().__init__(model)
        for p in self.model.parameters():
            p.zero_()


class Stateful(Running):
    updates = 0

    def update(self, model, images, batch_size):
        self.updates += 1
        self.share = 1 / self.updates
        super().update(model, images, batch_size)


class Disturbing(Running):
    @torch.no_grad()
    def update(self, model, images, batch_size):
        super().update(model, images, batch_size)
        model[0].weight += 1


@dataclass(frozen=True, kw_only=True)
class Average(interfaces.Average):
    """Builds one of the averages above."""

    running = Running

    def build(self, model):
        return self.running(model)


@pytest.mark.parametrize(
    ("cls", "law"),
    [
        (Elsewhere, "starts-equal"),
        (Shared, "average-is-idle"),
        (Disturbing, "leaves-inputs"),
        (Beyond, "between"),
        (Buffered, "copies-buffers"),
        (Stateful, "resumes"),
    ],
)
def test_a_broken_law_of_averages_is_named(cls, law):
    testing.check_average(Average())
    broken = type("Broken", (Average,), {"running": cls})
    with breaks(law):
        testing.check_average(broken())
