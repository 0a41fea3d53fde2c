"""Each law is broken here once, by a callback that is sound but for that."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

import genkit
from genkit import testing
from genkit.plugin import Callback, DataSpec, Measurement, Problem
from genkit.testing.running import PNG
from raising import breaks

COUNTER = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Sound(Callback):
    """Changes its copies of the networks, which is allowed."""

    every: int = 8
    names = ("mean", "picture")

    def call(self, training, context):
        mean = float(next(training.network.module.parameters()).mean())
        for parameter in training.network.module.parameters():
            parameter.zero_()
        return Measurement({"mean": mean}, pictures={"picture": PNG})


class Refusing(Sound):
    def check_training(self, design, networks):
        yield Problem((), "cannot observe this")


class Nothing(Sound):
    def call(self, training, context):
        return None


class Infinite(Sound):
    def call(self, training, context):
        return Measurement({"mean": float("inf")}, pictures={"picture": PNG})


class Text(Sound):
    def call(self, training, context):
        return Measurement({"mean": 1.0}, pictures={"picture": b"text"})


class Unnamed(Sound):
    names = ("mean", "other")


class Counting(Sound):
    def call(self, training, context):
        return Measurement({"mean": float(next(COUNTER))}, pictures={"picture": PNG})


class Writing(Sound):
    def call(self, training, context):
        context.record.log({"mean": 1.0})
        return super().call(training, context)


@pytest.mark.parametrize(
    ("cls", "law"),
    [
        (Refusing, "accepts-what-runs"),
        (Nothing, "measurement"),
        (Infinite, "finite-scores"),
        (Text, "pictures"),
        (Unnamed, "declared-names"),
        (Counting, "same-again"),
        (Writing, "own-folder"),
    ],
)
def test_a_broken_law_of_callbacks_is_named(cls, law):
    network = genkit.component("denoiser", "mlp", width=8, blocks=1)
    testing.check_callback(Sound(), network, DataSpec((2,)))
    with breaks(law):
        testing.check_callback(cls(), network, DataSpec((2,)))
