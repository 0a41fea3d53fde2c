"""Compare fitted noise levels with EDM's noise levels on the digits.

    OMP_NUM_THREADS=1 python benchmarks/fitted_schedules.py runs/edm-*/01-denoiser/denoiser.safetensors

prints, for each denoiser, solver and number of network calls, the Fréchet distance of 8-bit samples
for four schedules: fitted levels; rho 7 and rho 90 at sigma_max 80; and rho 7 at the best sigma_max.
This sigma_max is chosen with the seeds of the fit and with about as many samples as a fit. The stage
`fit-schedule` fits the levels with noise that differs from the noise of the scored samples. With
`--criteria`, the script instead prints how well criteria rank the candidates of a fit, and the result
of a search over single levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from digits_judge import CLASSIFIER, FIT_SEED, PIXELS, SCORE_SEED, Judge, draw, provenance
from scipy.stats import spearmanr
from torch import Tensor

from genkit import component, load_denoiser
from genkit.denoiser import Denoiser
from genkit.interfaces import Schedule
from genkit.tensors import as_stored
from genkit_stages.level_search import KnownLevels, energy, grid

CALLS = {"euler": (6, 10, 27), "heun": (7, 9, 13, 27), "dpmpp-2m": (6, 8, 10, 14)}
"""Dict from solver to numbers of network calls per sample, without the call of a corrected start."""

FEATURES = {"pixels": PIXELS, "classifier": CLASSIFIER}
HIGHEST = (80.0, 20.0, 10.0, 6.0, 4.0)
RANGE = (0.002, 80.0)


@dataclass(frozen=True)
class Measurer:
    """Draw and score samples of a denoiser with one solver and start.

    Attributes:
        denoiser: denoiser that is sampled.
        solver: name of the solver.
        start: ``noise`` or ``corrected``.
        judge: judge that compares samples with the digits.
        extractor: table of the extractor with whose features levels are fitted.
    """

    denoiser: Denoiser
    solver: str
    start: Any
    judge: Judge
    extractor: dict[str, Any]

    def draw(self, schedule: Schedule, seeds: range, seed: int) -> tuple[Tensor, float]:
        """Return samples ``[N, *shape]``, not rounded to 8 bits, and network calls per sample."""
        return draw(self.denoiser, schedule, seeds, seed=seed, solver=self.solver, start=self.start)

    def frechet(
        self, schedule: Schedule, seeds: range, seed: int = SCORE_SEED
    ) -> tuple[float, float]:
        """Return the Fréchet distance in the features of the digits classifier, and network calls."""
        items, nfe = self.draw(schedule, seeds, seed)
        return self.judge.frechet(items), nfe


def usual(steps: int, rho: float, sigma_max: float = RANGE[1]) -> Schedule:
    """Return EDM's schedule."""
    found: Schedule = component("schedule", "edm", steps=steps, rho=rho, sigma_max=sigma_max)
    return found


def fitted(measurer: Measurer, steps: int) -> Any:
    """Return the noise levels that the stage `fit-schedule` fits."""
    stage = component(
        "stage",
        "fit-schedule",
        denoiser="denoiser",
        data={"use": "digits"},
        solver={"use": measurer.solver},
        steps=steps,
        start=measurer.start,
        extractor=measurer.extractor,
    )
    return stage.fit(measurer.denoiser.trained, measurer.judge.place, FIT_SEED)


def rows(measurer: Measurer, samples: int) -> Iterator[list[str]]:
    """Yield a row of the table for each number of network calls."""
    seeds = range(samples)
    for calls in CALLS[measurer.solver]:
        steps = (calls + 1) // 2 if measurer.solver == "heun" else calls
        levels = fitted(measurer, steps)
        score, nfe = measurer.frechet(KnownLevels.of(levels.levels), seeds)
        seven, ninety = (measurer.frechet(usual(steps, rho), seeds)[0] for rho in (7, 90))
        few = range(levels.samples // len(HIGHEST))
        best = min(
            HIGHEST, key=lambda top: measurer.frechet(usual(steps, 7, top), few, FIT_SEED)[0]
        )
        tuned = measurer.frechet(usual(steps, 7, best), seeds)[0]
        yield [
            f"{nfe:g}",
            # If the fit keeps the levels of `edm`, they differ only by rounding.
            f"**{score:.2f}**" if score < min(seven, ninety) * 1.001 else f"{score:.2f} (worse)",
            f"{seven:.2f}",
            f"{ninety:.2f}",
            f"{tuned:.2f} ({best:g})",
            f"{levels.levels[0]:.3g} to {levels.levels[-1]:.2g}",
            f"{levels.samples / 2000:.2f}",
        ]


def print_table(measurers: Sequence[tuple[str, Measurer]], samples: int) -> None:
    """Print the table of all denoisers."""
    head = "| denoiser | solver | start | NFE | fitted | rho 7, 80 | rho 90, 80 "
    print(f"{head}| rho 7, best sigma_max | fitted levels | cost / 2,000 samples |")
    print("|---" * 10 + "|")
    for name, measurer in measurers:
        for row in rows(measurer, samples):
            print("|", " | ".join([name, measurer.solver, measurer.start, *row]), "|", flush=True)


def print_criteria(measurers: Sequence[tuple[str, Measurer]], samples: int) -> None:
    """Print the rank correlations of two criteria, and the result of a search over single levels.

    One criterion is the energy distance between 128 samples and the data. The other is the mean
    squared distance between these samples and the end points of trajectories of 48 steps from the
    same noise. Both are compared with the Fréchet distance of different samples by Spearman's rank
    correlation.
    """
    print(
        "| denoiser | solver | start | NFE | energy: rank correlation | Fréchet of the best |",
        end="",
    )
    print(
        " end error: rank correlation | Fréchet of the best | single levels: Fréchet before | after |"
    )
    print("|---" * 10 + "|")
    for name, measurer in measurers:
        calls = CALLS[measurer.solver][1]
        steps = (calls + 1) // 2 if measurer.solver == "heun" else calls
        few = range(128)
        exact = Measurer(measurer.denoiser, "heun", "corrected", measurer.judge, {})
        ends, _ = exact.draw(usual(48, 7), few, FIT_SEED)
        data = pixels(component("dataset", "digits").load(measurer.judge.place).data)
        scores, near, error = [], [], []
        schedules = [KnownLevels.of(c.levels(steps)) for c in grid(*RANGE)]
        for schedule in schedules:
            found, nfe = measurer.draw(schedule, few, FIT_SEED)
            near.append(energy(pixels(found), data))
            error.append(float((found.clamp(-1, 1) - ends.clamp(-1, 1)).square().mean()))
            scores.append(measurer.frechet(schedule, range(samples))[0])
        cells = [f"{nfe:g}"]
        for criterion in (near, error):
            best = min(range(len(scores)), key=criterion.__getitem__)
            cells += [f"{spearmanr(criterion, scores)[0]:.2f}", f"{scores[best]:.2f}"]
        start = schedules[min(range(len(scores)), key=near.__getitem__)]
        after = each_level(measurer, start, data)
        cells += [f"{measurer.frechet(s, range(samples))[0]:.2f}" for s in (start, after)]
        print("|", " | ".join([name, measurer.solver, measurer.start, *cells]), "|", flush=True)


def each_level(measurer: Measurer, schedule: Schedule, data: Tensor) -> Schedule:
    """Minimize the energy distance of 512 samples, and return the noise levels.

    This is a pattern search: one level at a time is multiplied or divided by a factor, which
    decreases from 1.35 to 1.07.
    """

    def near(levels: Sequence[float]) -> float:
        if any(a <= b for a, b in pairwise(levels)):
            return float("inf")
        found, _ = measurer.draw(KnownLevels.of(levels), range(512), FIT_SEED)
        return energy(pixels(found), data)

    levels = schedule.sigmas()[:-1].tolist()
    value = near(levels)
    for factor in (1.35, 1.2, 1.12, 1.07):
        for index in range(len(levels)):
            for change in (factor, 1 / factor):
                tried = [*levels[:index], levels[index] * change, *levels[index + 1 :]]
                if (other := near(tried)) < value:
                    levels, value = tried, other
                    break
    return KnownLevels.of(levels)


def pixels(items: Tensor) -> Tensor:
    """Return pixels ``[N, D]``, rounded to 8 bits, in [-1, 1]."""
    return as_stored(items, "item").double().div(127.5).sub(1).flatten(1)


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("denoisers", nargs="+", type=Path, help="files of denoisers")
    parser.add_argument("--start", choices=["noise", "corrected"], default="noise")
    parser.add_argument("--solvers", nargs="+", choices=CALLS, default=list(CALLS))
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument(
        "--features",
        choices=FEATURES,
        default="pixels",
        help="features with which levels are fitted",
    )
    parser.add_argument("--criteria", action="store_true")
    chosen = parser.parse_args()
    judge = Judge()
    measurers = [
        (
            str(path.parent.parent.name),
            Measurer(
                load_denoiser(path, "cpu"), name, chosen.start, judge, FEATURES[chosen.features]
            ),
        )
        for path in chosen.denoisers
        for name in chosen.solvers
    ]
    print(
        f"{provenance()}; samples: {chosen.samples:,} of seed {SCORE_SEED}; fit: seed {FIT_SEED}\n"
    )
    (print_criteria if chosen.criteria else print_table)(measurers, chosen.samples)


if __name__ == "__main__":
    main()
