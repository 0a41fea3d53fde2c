"""A stage that writes a denoiser, which it trains by itself."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from genkit.plugin import (
    Context,
    DenoiserFile,
    DenoiserRef,
    Design,
    InterruptedRun,
    Stage,
    Stages,
    as_column,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class Distill(Stage):
    """Trains a copy of a denoiser to return what the denoiser returns at half the noise level.

    It is no method of anybody's: a stage with a training loop, checkpoints and a network as its
    artifact.
    """

    output = DenoiserFile

    teacher: DenoiserRef = setting(doc="stage that wrote the denoiser")
    steps: int = setting(100, doc="optimizer steps", at_least=1)
    batch_size: int = setting(64, doc="noisy states of a step", at_least=1)
    learning_rate: float = setting(1e-3, doc="step size of gradient descent", above=0)

    def design(self, earlier: Stages) -> Design | None:
        return earlier[self.teacher].design(earlier)

    def run(self, context: Context) -> None:
        trained = context.network(self.teacher)
        student = copy.deepcopy(trained.module).requires_grad_(True)
        done = 0
        if found := context.record.restore():
            student.load_state_dict(found.tensors)
            done = int(found.numbers["steps"])
        context.record.resume(lambda row: row["step"] <= done)
        optimizer = torch.optim.SGD(student.parameters(), lr=self.learning_rate)
        while done < self.steps:
            if context.stop_requested():
                context.record.checkpoint(student.state_dict(), {"steps": done})
                raise InterruptedRun(f"{done} of {self.steps} steps")
            generator = context.generator("step", done)
            sigma = torch.rand(self.batch_size, generator=generator).to(context.device) + 0.1
            shape = (self.batch_size, *trained.spec.shape)
            noise = torch.randn(shape, generator=generator).to(context.device)
            x = as_column(sigma, noise) * noise
            loss = (student(x, sigma) - trained.module(x, sigma / 2)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            context.record.log({"step": done, "loss": float(loss.detach())})
            context.advance(done, self.steps, "steps")
        table = context.describe(trained.settings)
        weights = student.state_dict()
        context.record.save(DenoiserFile(table=table, spec=trained.spec, weights=weights))
