"""Blocks of a report about sampling trajectories: pictures of a few, and their curvature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import genkit
from genkit.parts.figure import number
from genkit.parts.grid import grid
from genkit.plugin import (
    Derived,
    GenkitError,
    Samples,
    Start,
    State,
    denoise_fn,
    draws_of,
    trajectory,
)
from genkit_report.blocks import Block, Picture, Text
from genkit_report.charts import Line, line_chart, path_chart
from genkit_report.pictures import data_of, denoiser_path, reason_to_omit
from genkit_report.view import View

STEPS = 32
"""Number of solver steps of a trajectory; chosen, not tuned."""

COUNT = 32
"""Number of trajectories."""

_STRIPS = 4  # trajectories whose images are shown
_LEVELS = 12  # noise levels at which the images of a trajectory are shown
_POINTS = 1_000  # points of the data beside trajectories in the plane


def trajectories(view: View) -> Iterator[Block]:
    """Yield trajectories of each denoiser that samples were drawn from, and their curvature.

    The trajectories are computed for the report on the CPU, without guidance, with Heun's method.
    """
    shown = set()
    for stage in view.stages():
        samples = view.read(stage, Samples)
        if samples is None or samples.denoiser in shown:
            continue
        path = denoiser_path(view, samples)
        if path is None:
            continue
        shown.add(samples.denoiser)
        title = f"{view.label}, {samples.denoiser}"
        if reason := reason_to_omit(view, stage, samples, 2 * STEPS * COUNT):
            yield Text(
                f"{title}: trajectories are omitted because {reason}; the metric curvature "
                "measures them in a run"
            )
            continue
        try:
            states = _solve(path, stage.settings.get("start", "auto"), view.run.recipe["seed"])
        except GenkitError as error:
            view.problems.append(f"{stage.id}: trajectories cannot be computed: {error}")
            continue
        yield from _shown(view, samples, states, title)
        if not any("curvature" in scores.curves for scores in view.scores.values()):
            yield _curvature(states, title)


def _solve(path: Path, start: Start, seed: int) -> list[State]:
    """Return the states of the first trajectories of a seed, at all noise levels.

    Raises:
        GenkitError: the file is damaged, or the network does not support the start.
    """
    denoiser = genkit.load_denoiser(path, "cpu")
    schedule = genkit.component("schedule", "edm", steps=STEPS)
    draws = draws_of(
        Derived(), denoiser.spec.shape, range(COUNT), denoiser.classes, denoiser.device, seed
    )
    return list(
        trajectory(
            denoise_fn(denoiser.module, draws.labels),
            draws,
            schedule=schedule,
            solver=genkit.component("solver", "heun"),
            start=denoiser.resolve_start(schedule, start),
        )
    )


def _shown(view: View, samples: Samples, states: list[State], title: str) -> Iterator[Block]:
    """Yield the paths of two-dimensional trajectories, or images of a few trajectories."""
    if states[0].x.shape[1:] == (2,):
        paths = torch.stack([state.x / (1 + state.sigma) for state in states], 1)
        data = data_of(view, samples)
        points = [] if data is None else data[:_POINTS].tolist()
        caption = f"{title}: {len(paths)} trajectories, drawn as x / (1 + sigma)"
        yield path_chart(caption, paths.tolist(), points)
    elif states[0].x.ndim == 4:
        inner = states[:-1]
        places = [round(k * (len(inner) - 1) / (_LEVELS - 1)) for k in range(_LEVELS)]
        chosen = [inner[k] for k in dict.fromkeys(places)]
        rows: list[Tensor] = []
        for k in range(_STRIPS):
            rows += [state.x[k] / (1 + state.sigma) for state in chosen]
            rows += [state.denoised[k] for state in chosen if state.denoised is not None]
        levels = ", ".join(number(float(f"{state.sigma:.2g}")) for state in chosen)
        yield Picture(
            f"{title}: {_STRIPS} trajectories, two rows each: the state x / (1 + sigma), and below "
            f"it the denoised image D(x; sigma); columns: sigma = {levels}",
            grid(torch.stack(rows).float(), len(chosen)),
            "Pairs of rows of images. In each pair, the upper row changes from noise to an image, "
            "and the lower row shows the image that the denoiser predicts at each noise level.",
            width=960,
        )


def _curvature(states: list[State], title: str) -> Block:
    """Return a chart of |d(sigma) - chord|^2, the deviation of the slope from a straight line."""
    first, last = states[0], states[-1]
    chord = (first.x - last.x) / first.sigma
    sigmas, means, deviations = [], [], []
    for state in states:
        if state.denoised is not None:
            slope = (state.x - state.denoised) / state.sigma
            values = (slope - chord).square().flatten(1).sum(1)
            sigmas.append(state.sigma)
            means.append(float(values.mean()))
            deviations.append(float(values.std(correction=0)))
    return line_chart(
        f"{title}: curvature of {len(first.x)} trajectories",
        [Line("curvature", sigmas, means, deviations)],
        "noise level sigma",
        "curvature: mean and standard deviation",
        log_x=True,
        log_y=True,
    )
