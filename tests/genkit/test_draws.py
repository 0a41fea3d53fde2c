"""Draws of latents: those of a plugin are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from genkit import blame
from genkit.errors import Code, DataError
from genkit.latents import Derived, draws_of
from genkit.sample import sample
from raising import raises_code
from toy_sampling import Euler, Gaussian, Halving, draws


@dataclass(frozen=True, kw_only=True)
class Changed(Derived):
    """Draws of which a test changes a part."""

    def draw(self, shape, seeds, classes, device, run_seed):
        return replace(super().draw(shape, seeds, classes, device, run_seed), **self.change)


@pytest.mark.parametrize(
    ("change", "classes", "said"),
    [
        ({"latents": np.zeros((2, 3))}, 0, ("latents", "ndarray")),
        ({"labels": [0, 1]}, 5, ("labels", "list")),
        (
            {"latents": torch.zeros(2, 4)},
            0,
            ("latents", [2, 3], [2, 4]),
        ),
        (
            {"latents": torch.zeros(2, 3).long()},
            0,
            ("latents", "torch.int64"),
        ),
        ({"labels": torch.zeros(2).long()}, 0, ("labels",)),
        ({"labels": None}, 5, ("labels", "0 to 4", "NoneType")),
        (
            {"labels": torch.zeros(2)},
            5,
            ("labels", "int64", "torch.float32"),
        ),
        (
            {"labels": torch.zeros(3).long()},
            5,
            ("labels", "2 int64", [3]),
        ),
        ({"labels": torch.tensor([0, 5])}, 5, ("labels", "0 to 5")),
    ],
)
def test_draws_of_a_plugin_are_checked(change, classes, said):
    latents = type("Changed", (Changed,), {"change": change})()
    with raises_code(DataError, Code.INVALID_RESULT, "Changed", *said):
        draws_of(latents, (3,), range(2), classes, torch.device("cpu"), 0)
    assert draws_of(Derived(), (3,), range(2), classes, torch.device("cpu"), 0)


def test_latents_of_a_plugin_are_finite():
    change = {"latents": torch.tensor([[0.0], [torch.nan]]).expand(2, 3)}
    latents = type("Changed", (Changed,), {"change": change})()
    with raises_code(DataError, Code.NOT_FINITE, "latent of Changed 1", "nan"):
        draws_of(latents, (3,), range(2), 0, torch.device("cpu"), 0)


def test_sound_draws_do_not_load_the_plugins(monkeypatch):
    """Loading them takes longer than drawing a batch; only a message has the name of a plugin."""
    monkeypatch.setattr(blame, "load_plugins", lambda: pytest.fail("plugins were loaded"))
    assert draws_of(Derived(), (3,), range(2), 0, torch.device("cpu"), 0)


def test_a_plugin_returns_draws():
    latents = type("Odd", (Derived,), {"draw": lambda *arguments: None})()
    with raises_code(DataError, Code.INVALID_RESULT, "Odd", "Draws", "NoneType"):
        draws_of(latents, (3,), range(2), 0, torch.device("cpu"), 0)


def test_samples_that_are_not_finite_are_refused():
    drawn = draws(range(3))
    drawn.latents[1] = torch.nan
    with raises_code(DataError, Code.NOT_FINITE, "sample 1"):
        sample(Gaussian(), drawn, schedule=Halving(steps=2), solver=Euler())


def test_noise_of_a_plugin_is_checked():
    for noise in (
        lambda x: torch.zeros(3),
        lambda x: torch.zeros(x.shape),
        lambda x: torch.zeros_like(x, device="meta"),
        lambda x: None,
    ):
        latents = type("Changed", (Changed,), {"change": {"randn_like": noise}})()
        draws = draws_of(latents, (3,), range(2), 0, torch.device("cpu"), 0)
        with raises_code(DataError, Code.INVALID_RESULT, "Changed", "torch.float64"):
            draws.randn_like(torch.zeros(2, 3, dtype=torch.float64))
