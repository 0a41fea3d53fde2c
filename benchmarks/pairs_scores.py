"""Score the denoisers that `pairs_trainings.py` trained, with EDM's and with fitted noise levels.

    OMP_NUM_THREADS=1 python benchmarks/pairs_scores.py runs/pairs/*/*denoiser/denoiser.safetensors

appends a line of JSON for each denoiser, schedule, start and number of Heun steps to
`runs/pairs/scores.jsonl`. Existing lines are not measured again. The stage `fit-schedule` fits levels
to pixels, with noise that differs from the noise of the scored samples. `pairs_page.py` writes tables.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from digits_judge import FIT_SEED, PIXELS, Judge, draw, made_with

from genkit import component, load_denoiser
from genkit.denoiser import Denoiser
from genkit.interfaces import Schedule
from genkit.start import ResolvedStart
from genkit_stages.level_search import KnownLevels

STEPS = (2, 3, 4, 5, 7, 14, 18)
"""Numbers of Heun steps: 3, 5, 7, 9, 13, 27 and 35 network calls, without the call of a corrected start."""

MULTISTEP = "fitted, dpmpp-2m"
"""Levels that are fitted for the solver `dpmpp-2m`, with as many calls as the steps of Heun's method."""

Key = tuple[str, str, str, int]
"""Denoiser, schedule, start and steps."""


def schedules(method: str) -> dict[str, dict[str, Any]]:
    """Return a dict from name to table of the schedules of a method, including its paper's schedule."""
    if "flow" in method:
        # Euler's method as in the papers; unlike Heun's, it is the same in sigma and in time.
        return {"uniform times": {"name": "flow"}}
    return {f"rho {rho}": {"name": "edm", "rho": rho} for rho in (7, 90)}


def is_independent(method: str) -> bool:
    """Return whether the noise of a method is independent of the images."""
    return method.partition("_")[0] in ("edm", "flow")  # without the suffix `_LEVER`


def cells(name: str, steps: tuple[int, ...]) -> Iterator[Key]:
    """Yield the key of each cell to score for a denoiser."""
    method, _, _ = name.rsplit("-", 2)
    starts = ("noise",) if is_independent(method) else ("noise", "corrected")
    for number in steps:
        for schedule in schedules(method):
            # Uniform times start at an infinite noise level, where a start from noise is exact.
            for start in ("noise",) if "flow" in method else starts:
                yield name, schedule, start, number
        for start in starts:
            yield name, "fitted", start, number
        if "flow" not in method:
            yield name, MULTISTEP, starts[-1], number


def fitted(
    denoiser: Denoiser, judge: Judge, solver: str, steps: int, start: ResolvedStart
) -> Schedule:
    """Return the noise levels that the stage `fit-schedule` fits."""
    stage = component(
        "stage",
        "fit-schedule",
        denoiser="denoiser",
        data={"use": "digits"},
        solver={"use": solver},
        steps=steps,
        start=start,
        extractor=PIXELS,
    )
    return KnownLevels.of(stage.fit(denoiser.trained, judge.place, FIT_SEED).levels)


def score(denoiser: Denoiser, judge: Judge, key: Key, samples: int) -> dict[str, Any]:
    """Score a cell, and return its line of JSON."""
    name, kind, start, steps = key
    solver = "heun"
    if kind == MULTISTEP:
        solver, steps = "dpmpp-2m", 2 * steps - 1
    if kind.startswith("fitted"):
        schedule = fitted(denoiser, judge, solver, steps, start)  # type: ignore[arg-type]
    else:
        table = dict(schedules(name)[kind])
        if table["name"] == "flow":
            solver, steps = "euler", 2 * steps - 1  # as many calls as with Heun's method
        schedule = component("schedule", table.pop("name"), steps=steps, **table)
    found = draw(denoiser, schedule, range(samples), solver=solver, start=start)  # type: ignore[arg-type]
    items, nfe = found
    levels = schedule.sigmas()[:-1].tolist()
    ends = {"sigma_max": levels[0], "sigma_min": levels[-1]} if kind.startswith("fitted") else {}
    return {"key": list(key), "nfe": nfe, **judge.scores(items), **ends}


def main() -> None:
    """Parse the command line and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("denoisers", nargs="+", type=Path, help="files of denoisers")
    parser.add_argument("--out", type=Path, default=Path("runs/pairs/scores.jsonl"))
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--samples", type=int, default=4096)
    chosen = parser.parse_args()
    judge, done = Judge(), set()
    if chosen.out.exists():
        lines = chosen.out.read_text(encoding="utf-8").splitlines()
        done = {tuple(json.loads(line).get("key", ())) for line in lines}
    with chosen.out.open("a", encoding="utf-8") as out:
        print(json.dumps({"made_with": made_with()}), file=out, flush=True)
        for path in chosen.denoisers:
            name = re.sub(r"^\d+-", "", path.parent.parent.name)
            denoiser = load_denoiser(path, "cpu")
            for key in cells(name, tuple(chosen.steps)):
                if key not in done:
                    line = score(denoiser, judge, key, chosen.samples)
                    print(json.dumps(line), file=out, flush=True)
                    print(*key, f"{line['classifier']:.2f}", f"{line['pixels']:.3f}", flush=True)


if __name__ == "__main__":
    main()
