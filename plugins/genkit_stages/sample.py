"""The stage ``sample``, which draws samples from a trained denoiser, with or without guidance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from genkit.artifacts import DenoiserRef, Samples
from genkit.costs import CostMeter
from genkit.designs import designs, references
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.interfaces import (
    BoundGuidance,
    Context,
    Design,
    Guidance,
    Latents,
    Sampler,
    SamplingStage,
    Schedule,
    Solver,
    Stages,
)
from genkit.latents import draws_of
from genkit.networks import bind_guidance
from genkit.parts.precision import Precision, StatePrecision
from genkit.sample import bind_schedule, network_levels, resolve_start, sample
from genkit.settings import setting
from genkit.start import START_DOC, sampling_warnings
from genkit.types import SEED_LIMIT, Batch, ResolvedStart, Start
from genkit_stages.best_cell import BestCell
from genkit_stages.drawing import level_problems, start_problems
from genkit_stages.size_checks import MOST_BATCH, sample_problems


class _Bound(NamedTuple):
    """Components that are bound once for all batches of a stage.

    Attributes:
        guidance: bound guidance methods, with their networks.
        schedule: schedule with its noise levels.
        start: distribution of the state at the first noise level.
    """

    guidance: Sequence[BoundGuidance]
    schedule: Schedule
    start: ResolvedStart


@dataclass(frozen=True, kw_only=True)
class Sample(SamplingStage):
    """Draw samples from a trained denoiser."""

    source = "EDM, arXiv 2206.00364, algorithms 1 and 2"
    shared = True

    denoiser: DenoiserRef = setting(doc="stage that trained the denoiser")
    first_seed: int = setting(
        0,
        doc="seed of the first sample; the others are consecutive. EDM scores 3 sets of 50_000 "
        "samples, with the first seeds 0, 50_000 and 100_000",
        at_least=0,
    )
    latents: Latents = setting(
        doc="source of latents, classes and the noise of stochastic solvers", use={"use": "derived"}
    )
    batch_size: int = setting(
        256, doc="number of samples drawn at a time", at_least=1, at_most=MOST_BATCH
    )
    schedule: Schedule = setting(doc="noise levels", use={"use": "edm"})
    solver: Solver = setting(doc="solver of the sampling ODE", use={"use": "heun"})
    start: Start = setting("auto", doc=START_DOC)
    guidance: tuple[Guidance, ...] = setting(
        (), doc="corrections of the denoised image, which are summed"
    )
    precision: Precision = setting(
        "float32",
        doc="precision of the networks' arithmetic, guidance included; tf32 is float32 with "
        "convolutions in TF32 on NVIDIA GPUs, and the same as float32 elsewhere",
    )
    state_precision: StatePrecision = setting(
        "float64", doc="precision of the solver's states; the networks use `precision`"
    )
    settings_from: BestCell | None = setting(
        None, doc="sweep whose best combination of settings replaces the settings written here"
    )

    def work(self, earlier: Stages) -> float:
        return 2.0 * self.schedule.steps * self.count  # 2 calls per step, as with heun

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.settings_from is not None:
            stage = replace(self, settings_from=None)
            yield from self.settings_from.check(stage, self.seeds(), earlier)
        denoiser = designs([self.denoiser], earlier).get(self.denoiser)
        yield from self._latent_problems(denoiser)
        if denoiser is None:
            yield from self._design_problems(earlier)
            return
        yield from sample_problems(denoiser.spec, self.count, self.batch_size)
        problems = self.schedule.check_sampler(self.denoiser, self.solver, self.start, earlier)
        yield from (problem.under("schedule") for problem in problems)
        levels = list(level_problems(denoiser.settings, self.schedule, self.solver, earlier))
        yield from levels or start_problems(denoiser.settings, self.schedule, self.start)

    def _design_problems(self, earlier: Stages) -> Iterator[Problem]:
        """Yield a problem if the denoiser has no design and its stage does not report why."""
        with suppress(DataError, KeyError):
            stage = earlier[self.denoiser]
            if stage.design(earlier) is None and not any(stage.check(earlier)):
                name = type(stage).__name__
                reason = f"must be a stage whose design returns a network, got {name}"
                hint = f"implement {name}.design"
                yield Problem(("denoiser",), reason, hint, Code.PLUGIN)

    def _latent_problems(self, denoiser: Design | None) -> Iterator[Problem]:
        """Yield a problem if seeds are invalid, or the latents do not support the data's shape."""
        if self.first_seed + self.count > SEED_LIMIT:
            yield Problem(
                ("first_seed",),
                f"must be at most 2^63 - count = {SEED_LIMIT - self.count}, got {self.first_seed}",
                "write a smaller seed",
                Code.OUT_OF_RANGE,
            )
            return
        try:
            if denoiser is not None:
                self.latents.require(denoiser.spec.shape, self.seeds())
        except DataError as error:
            yield Problem(("latents",), str(error))

    def drawn_by(self, earlier: Stages) -> str:
        return self.denoiser

    @property
    def depends_on_device(self) -> bool:
        return self.latents.depends_on_device

    def run(self, context: Context) -> None:
        stage, facts = self._resolve_settings(context)
        stage._run(context, facts)

    def _resolve_settings(self, context: Context) -> tuple[Sample, dict[str, str]]:
        """Return the stage with the best settings of a sweep, and a dict with a fact about them."""
        if self.settings_from is None:
            return self, {}
        stage = replace(self, settings_from=None)
        return self.settings_from.apply(stage, context)

    def _run(self, context: Context, facts: Mapping[str, str]) -> None:
        """Draw all samples, and save them; ``facts`` are saved in addition to the usual ones."""
        world = context.world
        parts = {k: context.folder / self._part(k, context) for k in self.batches()}
        missing = world.on_main(lambda: _list_missing(context.folder, parts))
        done = self.count - sum(map(len, missing))
        meter = CostMeter(self, context)
        bound = self._bind(context)
        context.advance(done, self.count, "samples")
        for turn, seeds in enumerate(world.padded_shard(missing), 1):
            if context.stop_requested():
                raise InterruptedRun(f"{done:,} of {self.count:,} samples")
            if seeds is not None:
                with meter.drawing(len(seeds)):
                    part = self._draw(context, seeds, bound)
                part.save(parts[seeds])
            done = self.count - sum(map(len, missing[turn * world.size :]))
            context.advance(done, self.count, "samples")
        meter.gather()  # also a barrier: all parts are written after it
        if world.is_main:
            loaded = [Samples.load(path) for path in parts.values()]
            samples = self._join(context, loaded, bound.start, facts)
            context.record.save(samples)
            context.record.cost(meter.cost(samples))
            for path in context.folder.glob("part-*.safetensors"):
                path.unlink()

    def _part(self, seeds: range, context: Context) -> str:
        """Return the file name for these seeds; it contains the device if draws depend on it."""
        on = f"{context.device.type}-" if self.latents.depends_on_device else ""
        return f"part-{on}{seeds.start:08d}.safetensors"

    def batches(self) -> Sequence[range]:
        """Return the seeds of each batch."""
        seeds = self.seeds()
        return [seeds[k : k + self.batch_size] for k in range(0, self.count, self.batch_size)]

    def seeds(self) -> range:
        """Return the seeds of all samples."""
        return range(self.first_seed, self.first_seed + self.count)

    def _bind(self, context: Context) -> _Bound:
        """Bind the components, and warn about unverified assumptions on the training pairs."""
        denoiser = context.network(self.denoiser)
        guidance = [bind_guidance(guidance, context, denoiser) for guidance in self.guidance]
        sampler = Sampler(denoiser.module, denoiser.coupling, self.solver, self.start)
        schedule = bind_schedule(self.schedule, context, sampler)
        levels = network_levels(denoiser.module, schedule)
        for warning in sampling_warnings(
            self.start, denoiser.coupling, self.solver, guidance, levels
        ):
            context.warn(warning)
        start = resolve_start(self.start, denoiser.module, denoiser.coupling, schedule)
        return _Bound(guidance, schedule, start)

    def draw(self, context: Context) -> Samples:
        stage, facts = self._resolve_settings(context)
        return stage._draw_all(context, facts)

    def _draw_all(self, context: Context, facts: Mapping[str, str]) -> Samples:
        parts: list[Samples] = []
        bound = self._bind(context)
        for seeds in context.world.padded_shard(self.batches()):
            part = None if seeds is None else self._draw(context, seeds, bound)
            parts += context.world.all_gather(part)
        return self._join(context, parts, bound.start, facts)

    def _join(
        self,
        context: Context,
        parts: Sequence[Samples],
        start: ResolvedStart,
        facts: Mapping[str, str],
    ) -> Samples:
        return Samples(
            Batch.joined([part.batch for part in parts]),
            _mean([(part.nfe, len(part.batch)) for part in parts]),
            _mean([(part.guidance_nfe, len(part.batch)) for part in parts]),
            self.denoiser,
            {**self._facts(context, start), **facts},
        )

    def sampler_fact(self, context: Context) -> str:
        described = context.describe(self)
        names = (
            "schedule",
            "solver",
            "latents",
            "start",
            "guidance",
            "precision",
            "state_precision",
        )
        settings = {name: described[name] for name in names if described.get(name)}
        return json.dumps(settings, sort_keys=True)

    def _facts(self, context: Context, start: ResolvedStart) -> dict[str, str]:
        """Return the facts on how the samples are drawn; comparable scores have the same facts."""
        seeds = self.seeds()
        networks = sorted(set(references(self)) - {self.denoiser})
        facts = {
            "seeds": f"{seeds.start}-{seeds.stop - 1} of {context.seed('samples')}",
            "sampler": self.sampler_fact(context),
            "start": start,
            "denoiser": f"sha256:{context.digest(self.denoiser)}",
        }
        return facts | {f"network {n}": f"sha256:{context.digest(n)}" for n in networks}

    def _draw(self, context: Context, seeds: Sequence[int], bound: _Bound) -> Samples:
        """Draw the samples of these seeds."""
        denoiser = context.network(self.denoiser)
        seed = context.seed("samples")
        draws = draws_of(
            self.latents, denoiser.spec.shape, seeds, denoiser.classes, context.device, seed
        )
        drawn = sample(
            denoiser.module,
            draws,
            schedule=bound.schedule,
            solver=self.solver,
            start=bound.start,
            guidance=bound.guidance,
            precision=self.precision,
            state_precision=self.state_precision,
        )
        return Samples(drawn.batch, drawn.nfe, drawn.guidance_nfe, self.denoiser)


def _mean(counts: Sequence[tuple[float, int]]) -> float:
    """Return the mean number of calls per sample, an int if it is the same for all batches.

    Args:
        counts: for each batch, the number of calls per sample and the number of samples.
    """
    if len({calls for calls, _ in counts}) == 1:
        return counts[0][0]
    # A sum of integers does not depend on the order of the batches.
    return sum(calls * size for calls, size in counts) / sum(size for _, size in counts)


def _list_missing(folder: Path, parts: Mapping[range, Path]) -> list[range]:
    """Return the ranges of seeds whose files do not exist.

    The folder is listed rather than testing each path: a network file system may cache the absence
    of a file long after another machine wrote it.
    """
    names = {path.name for path in folder.iterdir()}
    return [seeds for seeds, path in parts.items() if path.name not in names]
