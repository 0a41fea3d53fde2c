"""The stage ``average``, which reconstructs averaged weights for a chosen averaging length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from genkit.artifacts import DenoiserFile, DenoiserRef
from genkit.designs import outermost
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Average, Context, Design, Stage, Stages
from genkit.parts.power_averages import reconstruct_network
from genkit.parts.power_profile import exponent
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class AverageWeights(Stage):
    """Reconstruct a denoiser with a chosen averaging length from its snapshots.

    Its stage `train` must use the average `power-ema`. Later stages use the result like a trained
    denoiser, for example for sampling, or as the guide of another denoiser.
    """

    source = "EDM2, arXiv 2312.02696, section 3"
    output = DenoiserFile

    training: DenoiserRef = setting(doc="stage that trained the denoiser, with power-ema")
    length: float = setting(
        doc="relative length of the average: standard deviation of the averaging profile over "
        "training time, divided by the total training time",
        above=0,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            exponent(self.length)
        except DataError as error:
            yield Problem(("length",), str(error), code=Code.OUT_OF_RANGE)
        if not any(
            average.reconstructible for _, average in outermost(earlier[self.training], Average)
        ):
            yield Problem(
                ("training",),
                "must be a stage whose averages can be reconstructed, got "
                f'"{self.training}", which has no such average',
                'write average = { use = "power-ema" } in that stage',
                Code.CONFLICT,
            )

    def design(self, earlier: Stages) -> Design | None:
        return earlier[self.training].design(earlier)

    def run(self, context: Context) -> None:
        weights, error = reconstruct_network(context.results(self.training), self.length)
        context.record.log({"profile_error": error})
        file = context.read(self.training, DenoiserFile)
        context.record.save(replace(file, weights=weights, ema_length=self.length))
