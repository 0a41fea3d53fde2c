"""Stages that write samples: a copy of those of another stage, and a sampler of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from genkit.plugin import (
    Batch,
    Context,
    CostMeter,
    DenoiserRef,
    PerSample,
    Samples,
    SamplesRef,
    SamplingStage,
    Schedule,
    Stage,
    Stages,
    denoise_fn,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class CopySamples(Stage):
    """Copies the first samples of an earlier stage."""

    output = Samples

    samples: SamplesRef = setting(doc="stage that drew the samples")
    count: int = setting(16, doc="number of samples", at_least=1)

    def drawn_by(self, earlier: Stages) -> str | None:
        return earlier[self.samples].drawn_by(earlier)

    def run(self, context: Context) -> None:
        samples = context.read(self.samples, Samples)
        context.record.save(replace(samples, batch=samples.batch[: self.count]))


@dataclass(frozen=True, kw_only=True)
class EulerSamples(SamplingStage):
    """Draws samples of a denoiser with Euler's method, without the core's driver."""

    denoiser: DenoiserRef = setting(doc="stage that wrote the denoiser")
    schedule: Schedule = setting(doc="noise levels", use={"use": "edm"})

    def drawn_by(self, earlier: Stages) -> str:
        return self.denoiser

    def sampler_fact(self, context: Context) -> str:
        return f"Euler's method over {context.describe(self.schedule)}"

    def draw(self, context: Context) -> Samples:
        trained = context.network(self.denoiser)
        denoise = denoise_fn(trained.module)
        sigmas = self.schedule.sigmas()
        latents = PerSample(context.seed(), ("latents",), range(self.count))
        x = float(sigmas[0]) * latents.draw(trained.spec.shape).to(context.device)
        for sigma, following in pairwise(sigmas):
            x = x + (following - sigma) * (x - denoise(x, sigma)) / sigma
        facts = {
            "seeds": f"0-{self.count - 1} of {context.seed()}",
            "sampler": self.sampler_fact(context),
            "denoiser": f"sha256:{context.digest(self.denoiser)}",
        }
        return Samples(Batch(x.float().cpu()), denoise.nfe, denoiser=self.denoiser, facts=facts)

    def run(self, context: Context) -> None:
        meter = CostMeter(self, context)
        with meter.drawing(self.count):
            samples = self.draw(context)
        context.record.save(samples)
        context.record.cost(meter.cost(samples))
