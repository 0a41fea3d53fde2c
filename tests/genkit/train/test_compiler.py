"""Compiled training: the same steps and the same names, and a clear word where it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genkit.errors import UsageError
from genkit.interfaces import Objective
from genkit.random import derive_seed, seeded
from genkit.train.compiler import require_compiler
from genkit.train.trainer import Compute, Trainer
from genkit.types import Batch
from genkit.world import SINGLE_PROCESS
from genkit_optim.adam import Adam
from genkit_optim.ema import Ema

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Squared distance between the model of the noise and the data."""

    def loss(self, model, batch, noise, generator):
        return (model(noise) - batch.data).square().flatten(1).mean(1)


def trainer(compiled: bool) -> Trainer:
    with seeded(7):
        model = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 3))
    context = SimpleNamespace(device=CPU, world=SINGLE_PROCESS, seed=partial(derive_seed, 0))
    compute = Compute(compiled=compiled)
    return Trainer(context, model, Regression(), Adam(learning_rate=1e-2), Ema(), (3,), compute)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_a_compiled_network_takes_the_same_steps_and_keeps_its_names(monkeypatch):
    # Compiled headers are 150 MB, and take longer than they save for this network.
    monkeypatch.setattr("torch._inductor.config.cpp_cache_precompile_headers", False)
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
    assert "C++ compiler" in str(told.value)
    assert "no compiler here; install it, or write compile = false" in str(told.value)
