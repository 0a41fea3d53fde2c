"""The stage that fits noise levels to a denoiser, a solver and a number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genkit.artifacts import DenoiserRef
from genkit.designs import designs
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.features import DatasetReference, Extractors, FeatureContext
from genkit.interfaces import (
    Context,
    Dataset,
    Extractor,
    Inputs,
    Schedule,
    Solver,
    Stage,
    Stages,
    Trained,
)
from genkit.latents import Derived, draws_of
from genkit.sample import denoise_fn, resolve_start, sample
from genkit.settings import setting, sigma_setting
from genkit.start import START_DOC
from genkit.tensors import as_stored, digest
from genkit.types import Draws, ResolvedStart, Start
from genkit_stages.fitted_levels import FittedLevels, name_of
from genkit_stages.level_search import (
    FINAL_SAMPLES,
    MAX_ITEMS,
    KnownLevels,
    Search,
    standardize,
)

MAX_STEPS = 1000  # chosen, not tuned


@dataclass(frozen=True, kw_only=True)
class FitSchedule(Stage):
    """Fit noise levels, including sigma_max, that minimize the distance of samples to the data.

    A schedule `{ use = "fitted", levels = "STAGE", steps = N }` uses them. Nothing is trained:
    candidates are levels evenly spaced in sigma^(1 / rho). They are compared by the energy distance
    of their samples to the data, first with 32 samples each and finally with 192. This takes fewer
    network calls than drawing 2,000 samples. Levels with rho 7 and 90 over the whole range are
    among the candidates.
    """

    source = "genkit's digits study; levels of EDM, arXiv 2206.00364, eq. 5; Szekely and Rizzo 2013"
    output = FittedLevels

    denoiser: DenoiserRef = setting(doc="stage that trained the denoiser")
    data: Dataset = setting(doc="real items that the samples are compared with", inherit="data")
    steps: int = setting(8, doc="number of solver steps", at_least=1, at_most=MAX_STEPS)
    solver: Solver = setting(doc="solver of the sampling ODE", use={"use": "heun"})
    start: Start = setting("auto", doc=START_DOC)
    extractor: Extractor = setting(
        doc="features in which samples and data are compared; use inception for photographs",
        use={"use": "pixels"},
    )
    sigma_min: float = sigma_setting(0.002, "minimum noise level of the candidates")
    sigma_max: float = sigma_setting(80.0, "maximum noise level of the candidates")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.sigma_min >= self.sigma_max:
            reason = f"must be below sigma_max = {self.sigma_max:g}, got {self.sigma_min:g}"
            yield Problem(("sigma_min",), reason, "write 0.002", Code.OUT_OF_RANGE)
        networks = designs(earlier, earlier)
        denoiser = networks.get(self.denoiser)
        try:
            spec = self.data.spec()
        except DataError:  # reported by the check of the data
            return
        if denoiser is not None and denoiser.spec.shape != spec.shape:
            yield Problem(
                ("data",),
                f"must be items of the denoiser's shape {denoiser.spec.shape}, got {spec.shape}",
                "name the data that the denoiser was trained on",
                Code.WRONG_SHAPE,
            )
        elif not any(self.extractor.check(earlier)):
            problems = self.extractor.check_items(spec, networks)
            yield from (problem.under("extractor") for problem in problems)

    def run(self, context: Context) -> None:
        if context.stop_requested():
            raise InterruptedRun("nothing is fitted yet")
        denoiser = context.network(self.denoiser)
        context.record.save(self.fit(denoiser, context, context.seed("noise")))

    def identity(self, denoiser: Trained, inputs: Inputs) -> str:
        """Return the settings and the hashes of denoiser and data, which determine the levels."""
        hashes = denoiser.digest, digest(self.data.load(inputs).data)
        return f"{self} for {' and '.join(hashes)}"

    def fit(self, denoiser: Trained, place: FeatureContext, seed: int = 0) -> FittedLevels:
        """Fit noise levels to a denoiser.

        Args:
            denoiser: trained denoiser; in a run, the output of the stage :attr:`denoiser`.
            place: context in which features are computed: device, processes and files.
            seed: seed of the initial noise, which all candidates share.

        Raises:
            DataError: the data is missing, corrupt or of a different shape, or no candidate gives
                finite samples.
        """
        extractors = Extractors(place)
        data = DatasetReference(self.data, extractors)
        spec, shape = denoiser.spec, tuple(data.batch.data.shape[1:])
        if shape != spec.shape:
            raise DataError(
                f"data must be items of the denoiser's shape {spec.shape}, got {shape}; name the "
                "data that the denoiser was trained on",
                Code.WRONG_SHAPE,
            )
        every = -(-len(data.batch) // MAX_ITEMS)

        def draws(seeds: range) -> Draws:
            return draws_of(Derived(), spec.shape, seeds, denoiser.classes, place.device, seed)

        noise = standardize(draws(range(FINAL_SAMPLES)).latents)

        def draw(schedule: Schedule, seeds: range) -> Tensor:
            drawn = sample(
                denoiser.module,
                replace(draws(seeds), latents=noise[seeds.start : seeds.stop]),
                schedule=schedule,
                solver=self.solver,
                start=self._start(denoiser, schedule),
            )
            items = as_stored(drawn.batch.data, "sample")
            return extractors.compute(self.extractor, items, "sample")

        lowest, highest = self._range(denoiser)
        search = Search(draw, data.features(self.extractor)[::every], self.steps)
        with torch.no_grad():
            best = search.run(lowest, highest)
        return FittedLevels(
            best.levels,
            denoiser.digest,
            name_of(self.solver),
            self._start(denoiser, KnownLevels.of(best.levels)),
            best.energy,
            best.usual,
            best.samples,
        )

    def _start(self, denoiser: Trained, schedule: Schedule) -> ResolvedStart:
        return resolve_start(self.start, denoiser.module, denoiser.coupling, schedule)

    def _range(self, denoiser: Trained) -> tuple[float, float]:
        """Return the candidates' range of noise levels, restricted to the range of the network."""
        lowest, highest = self.sigma_min, self.sigma_max
        if (preconditioner := denoise_fn(denoiser.module).preconditioner) is not None:
            bottom, top = preconditioner.sigma_range()
            lowest, highest = max(lowest, bottom), min(highest, top)
        if lowest >= highest:
            raise DataError(
                f"sigma_min must be below the network's maximum noise level, {highest:g}, got "
                f"{lowest:g}; write a smaller sigma_min",
                Code.OUT_OF_RANGE,
            )
        return lowest, highest
