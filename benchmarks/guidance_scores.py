"""Score guidance on the digits, with the networks that `guidance_trainings.py` trained.

    OMP_NUM_THREADS=1 python benchmarks/guidance_scores.py --seeds 0 1 2

trains missing networks, and appends a line of JSON to `runs/guidance/scores.jsonl` for each run,
schedule, number of Heun steps, guidance and choice of the weight. Existing lines are not measured
again. Weights are chosen with samples that are not scored. `guidance_page.py` writes the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from digits_judge import DIRECTIONS, made_with
from guidance_trainings import METHODS, folder, named, parser, run, size_of

import genkit
from genkit.artifacts.layout import METRICS, stages_in

STEPS = (4, 7, 14)
"""Numbers of Heun steps: 7, 13 and 27 network calls, without the call of a corrected start."""

SCHEDULES = ("paper", "fitted")
"""Names of the schedules: the noise levels of the method's paper, and levels that are fitted to the
denoiser without guidance."""

SETS = 3
SWEPT = 2048
"""Number of samples with which each combination of settings is scored when a weight is chosen. The
final scores are of samples with different seeds."""

PUBLISHED = "sigma_min = 0.0447, sigma_max = 152.2"
FIRST = "second_weight = 0.0"
WEIGHTS = "vary.guidance.weight = [0.0, 0.5, 1.0, 2.0]\n"
RANGES = "vary.guidance.sigma_max = [1.0, 5.0, 20.0]\n"
BY_LEVEL = 'weight_by = "{guidance}-weight"'

ARMS: dict[str, tuple[str, str]] = {
    "published": (f"weight = 2.0, {FIRST}, {PUBLISHED}", ""),
    "sweep-first": (FIRST, WEIGHTS + RANGES),
    "sweep-both": ("", WEIGHTS + RANGES),
    "sweep-both-published-range": (PUBLISHED, WEIGHTS),
    "by-level-first": (f"{BY_LEVEL}, {FIRST}", ""),
    "by-level-both": (BY_LEVEL, ""),
}
"""Dict from the name of an arm to the settings of discriminator guidance, and to the settings that a
sweep varies."""

MAIN = ("sweep-both", "by-level-both")
"""Arms for all schedules and numbers of steps; the others are only measured with those of `ONCE`."""

ONCE = ("paper", 7)
"""Schedule and number of steps with which all arms are compared, for the first training run of
unconditional denoisers."""

SECOND_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
INTERVALS = {
    "everywhere": "",
    "below-1": "sigma_max = 1.0",
    "middle": "sigma_min = 0.2, sigma_max = 2.0",
}
"""Dict from name to the settings of the noise levels at which a second denoiser guides."""

# The noise of EDM depends on the seed only, so that all arms are compared with the same noise.
SAMPLE = """
[[stage]]
id = "{id}"
use = "sample"
denoiser = "denoiser"
count = {count}
first_seed = {first}
latents = {{ use = "edm" }}
schedule = {schedule}
guidance = [{guidance}]
{more}
"""

FIT = """
[[stage]]
id = "levels-{steps}"
use = "fit-schedule"
denoiser = "denoiser"
steps = {steps}
"""

FEATURES = '{ use = "classifier", file = "digits" }'
SCORE = f'{{ use = "frechet", extractor = {FEATURES} }}'
SPREAD = f'{{ use = "spread", extractor = {{ use = "pixels" }}, directions = {DIRECTIONS} }}'
AGREEMENT = f'{{ use = "class-agreement", extractor = {FEATURES} }}'

EVALUATE = """
[[stage]]
id = "{id}-scores"
use = "evaluate"
samples = "{id}"
sets = {sets}
metrics = [{metrics}]
"""

# `settings_from` takes the settings that a sweep varies; others must be equal in both stages.
SWEEP = """
[[stage]]
id = "{id}-sweep"
use = "sweep"
samples = "{id}-tried"
count = {count}
{vary}metrics = [{score}]
"""
CHOSEN = 'settings_from = {{ stage = "{id}-sweep", score = "frechet_classifier", rule = "min" }}'

Key = tuple[str, int, str, int, str, str]
"""Method, seed, schedule, steps, guidance and arm."""


def schedules(name: str, steps: int) -> dict[str, str]:
    """Return a dict from name to table of both schedules: the paper's and the fitted one."""
    rho = 90.0 if METHODS[name].pairs else 7.0
    return {
        "paper": f'{{ use = "edm", steps = {steps}, rho = {rho} }}',
        "fitted": f'{{ use = "fitted", levels = "levels-{steps}", steps = {steps} }}',
    }


def arms(name: str, seed: int, schedule: str, steps: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield guidance, arm, table of the guidance, and settings that a sweep varies, for each arm."""
    yield "none", "none", "", ""
    for guidance in METHODS[name].guidances:
        if METHODS[name].second:
            use = f'use = "{guidance}"' + (
                ', guide = "guide"' if guidance == "autoguidance" else ""
            )
            for where, interval in INTERVALS.items():
                for weight in SECOND_WEIGHTS:
                    settings = f"weight = {weight}"
                    parts = [use, settings, interval] if interval else [use, settings]
                    yield guidance, f"{weight:g}-{where}", f"{{ {', '.join(parts)} }}", ""
            continue
        use = f'use = "discriminator", discriminator = "{guidance}"'
        compared = (schedule, steps) == ONCE and seed == 0 and not METHODS[name].conditional
        for arm in ARMS if compared else MAIN:
            settings, vary = ARMS[arm]
            found = settings.format(guidance=guidance)
            yield guidance, arm, f"{{ {use}, {found} }}" if found else f"{{ {use} }}", vary


def stages(
    name: str, schedule: str, arm: tuple[str, str, str, str], where: str, samples: int
) -> str:
    """Return the stages that draw and score an arm.

    Args:
        name: method.
        schedule: table of the schedule.
        arm: arm, see :func:`arms`.
        where: part of the ids that distinguishes the schedules.
        samples: number of samples of each set.
    """
    guidance, label, table, vary = arm
    stage = stage_of(guidance, label, where)
    conditional = METHODS[name].conditional
    metrics = ", ".join([SCORE, SPREAD, *([AGREEMENT] if conditional else [])])
    tables, more = "", ""
    if vary:
        # The sweep only uses the settings of this stage, not its samples.
        tables = SAMPLE.format(
            id=f"{stage}-tried", count=1, first=100_000, schedule=schedule, guidance=table, more=""
        )
        count = min(SWEPT, samples)
        tables += SWEEP.format(id=stage, count=count, vary=vary, score=SCORE)
        more = CHOSEN.format(id=stage)
    count = SETS * samples
    tables += SAMPLE.format(
        id=stage, count=count, first=0, schedule=schedule, guidance=table, more=more
    )
    return tables + EVALUATE.format(id=stage, sets=SETS, metrics=metrics)


def stage_of(guidance: str, label: str, where: str) -> str:
    """Return the id of the stage that draws an arm."""
    return f"{where}-{guidance}-{label}".replace(".", "_")


def line_of(result: genkit.Result, key: Key) -> dict[str, Any]:
    """Return the line of JSON for an arm, from the results of its stages."""
    *_, schedule, steps, guidance, arm = key
    stage = stage_of(guidance, arm, f"{schedule}-{steps}")
    places = stages_in(result.folder)
    cost = json.loads((places[stage] / "cost.json").read_text(encoding="utf-8"))["rows"][0]
    kept = ("nfe_equivalents", "gflop_per_image", "gflop_per_call", "seconds_per_image")
    line = {"key": list(key), **result.scores[f"{stage}-scores"][0]}
    line["cost"] = {name: cost[name] for name in kept}
    if tried := result.scores.get(f"{stage}-sweep"):
        line["tried"] = tried
    return line


def network_line(place: Path, name: str, seed: int, guidance: str) -> dict[str, Any]:
    """Return the line of JSON for a discriminator, with its chosen snapshot and its fitted weight."""
    places = stages_in(place)
    rows = (places[guidance] / METRICS).read_text(encoding="utf-8").splitlines()
    weight = json.loads((places[f"{guidance}-weight"] / "weight.json").read_text(encoding="utf-8"))
    return {
        "discriminator": [name, seed, guidance],
        "chosen": json.loads(rows[-1]),
        "weight": {k: weight[k] for k in ("sigmas", "weights", "standard_errors", "error_at_one")},
    }


def missing(name: str, seed: int, done: set[Key], steps: int, schedule: str) -> list[Any]:
    """Return the arms that have not been measured."""
    wanted = arms(name, seed, schedule, steps)
    return [a for a in wanted if (name, seed, schedule, steps, a[0], a[1]) not in done]


def main() -> None:
    """Parse the command line and score."""
    options = parser(__doc__)
    options.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    options.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    options.add_argument(
        "--samples", type=int, default=5000, help="number of samples of each of three sets"
    )
    options.add_argument("--scores", type=Path, default=Path("runs/guidance/scores.jsonl"))
    chosen = options.parse_args()
    done: set[Any] = set()
    chosen.scores.parent.mkdir(parents=True, exist_ok=True)
    if chosen.scores.exists():
        for line in map(json.loads, chosen.scores.read_text(encoding="utf-8").splitlines()):
            done.add(tuple(line.get("key") or line.get("discriminator") or ()))
    with chosen.scores.open("a", encoding="utf-8") as out:
        print(json.dumps({"made_with": made_with()}), file=out, flush=True)
        for name, seed in named(chosen):
            for steps in chosen.steps:
                for schedule in chosen.schedules:
                    left = missing(name, seed, done, steps, schedule)
                    if not left:
                        continue
                    table = schedules(name, steps)[schedule]
                    more = FIT.format(steps=steps) if schedule == "fitted" else ""
                    where = f"{schedule}-{steps}"
                    more += "".join(stages(name, table, a, where, chosen.samples) for a in left)
                    result = run(name, seed, size_of(chosen), chosen.out, more)
                    for guidance, arm, *_ in left:
                        line = line_of(result, (name, seed, schedule, steps, guidance, arm))
                        print(json.dumps(line), file=out, flush=True)
            for guidance in () if METHODS[name].second else METHODS[name].guidances:
                if (name, seed, guidance) not in done:
                    place = folder(chosen.out, name, seed)
                    print(
                        json.dumps(network_line(place, name, seed, guidance)), file=out, flush=True
                    )


if __name__ == "__main__":
    main()
