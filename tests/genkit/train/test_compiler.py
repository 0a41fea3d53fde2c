"""Compiled training: the same steps and the same names, and a clear word where it cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genkit.errors import UsageError
from genkit.interfaces import Objective
from genkit.random import derive_seed, seeded
from genkit.train.compiler import require_compiler
from genkit.train.trainer import Optimization, Trainer
from genkit.types import Batch

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Squared distance between the model of the noise and the data."""

    def loss(self, model, batch, noise, generator):
        return (model(noise) - batch.data).square().flatten(1).mean(1)


def trainer(compiled: bool) -> Trainer:
    with seeded(7):
        model = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 3))
    how = Optimization(1e-2, 0, 0, 0.999, 1e-8, None, "float32", False, compiled, 64, 100, 0.0, ())
    return Trainer(model, Regression(), how, CPU, lambda *purpose: derive_seed(0, *purpose))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_a_compiled_network_takes_the_same_steps_and_keeps_its_names():
    plain, compiled = trainer(False), trainer(True)
    for index in range(3):
        drawn = torch.randn((2, 64, 3), generator=torch.Generator().manual_seed(index))
        losses = [float(t.step(Batch(drawn[0]), drawn[1])) for t in (plain, compiled)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert compiled.model._compiled_call_impl is not None
    assert plain.state()[0].keys() == compiled.state()[0].keys()


def test_without_a_compiler_it_is_said_what_to_write(monkeypatch):
    def missing(module):
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr(torch, "compile", missing)
    with pytest.raises(UsageError) as told:
        require_compiler(CPU)
    assert str(told.value) == (
        "compile = true needs a C++ compiler that works: RuntimeError: no compiler here; "
        "install it, or write compile = false"
    )
