"""Pictures of a report: samples, data, and the image of the data that is nearest to each sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import genkit
from genkit.parts.figure import number
from genkit.parts.grid import grid
from genkit.parts.no_stages import NoStages
from genkit.plugin import (
    DenoiserFile,
    GenkitError,
    Samples,
    StageResult,
    to_float,
)
from genkit_report.blocks import Block, Picture, Table, Text
from genkit_report.view import View

COLUMNS = 16
STEPS = (3, 5, 9, 18)
"""Numbers of solver steps for which samples of the same seeds are shown."""

MOST_SECONDS = 10.0
"""Maximum expected time of a computation for a report."""

_BLOCK = 4_096  # images of the data that are compared with the samples at a time


def compare_with_data(view: View, samples: Samples, title: str) -> tuple[Block, ...]:
    """Return a picture of data, samples and the image of the data nearest to each sample.

    A table of the distances follows: Euclidean distances of pixels in [-1, 1]. The result is empty
    if the data cannot be read or has a different shape.

    Args:
        view: run of the samples; receives a problem if the data cannot be read.
        samples: samples.
        title: description of the samples.
    """
    return tuple(_compared(view, samples, title))


def _compared(view: View, samples: Samples, title: str) -> Iterator[Block]:
    data = data_of(view, samples)
    if data is None or data.shape[1:] != samples.batch.data.shape[1:]:
        return
    count = min(COLUMNS, len(samples.batch), len(data))
    shown = samples.batch.data[:count]
    distances, places = nearest(shown, data)
    rows = (data[:count], shown, data[places])
    yield Picture(
        f"{title}; rows: images of the data, samples, and the image of the data nearest to each "
        "sample",
        grid(torch.cat([to_float(row) for row in rows]), count),
        "Three rows of images: the first images of the data, the first samples, and below each "
        "sample the nearest image of the data.",
        width=960,
    )
    neighbors = enumerate(zip(distances.tolist(), places.tolist(), strict=True))
    yield Table(
        f"Distances to the nearest images: {title}",
        ("sample", "index of the nearest image", "distance"),
        [(str(k), str(place), number(distance)) for k, (distance, place) in neighbors],
        folded=True,
    )


def over_steps(view: View, stage: StageResult, samples: Samples) -> Iterator[Block]:
    """Yield a picture of samples of the same seeds with few and with many solver steps.

    The samples are drawn for the report on the CPU, without guidance. If this is expected to take
    more than 10 seconds, or an unknown time, a sentence with the reason is yielded instead.
    """
    path = denoiser_path(view, samples)
    if path is None:
        return
    calls = COLUMNS * sum(2 * steps for steps in STEPS)
    if reason := reason_to_omit(view, stage, samples, calls):
        yield Text(
            f"{stage.id}: samples with {_listed_steps()} steps are omitted because {reason}; draw "
            "them with genkit sample --steps"
        )
        return
    settings = dict(stage.settings)
    try:
        denoiser = genkit.load_denoiser(path, "cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run has printed the warnings
            rows = [
                denoiser.sample(
                    COLUMNS,
                    schedule={**settings["schedule"], "steps": steps},
                    solver=settings["solver"],
                    start=settings["start"],
                    seed=view.run.recipe["seed"],
                )
                for steps in STEPS
            ]
    except GenkitError as error:
        view.problems.append(
            f"{stage.id}: samples with {_listed_steps()} steps cannot be drawn: {error}"
        )
        return
    yield Picture(
        f"{view.label}, {stage.id}: samples of the same seeds; rows: {_listed_steps()} steps, "
        "without guidance",
        grid(torch.cat(rows), COLUMNS),
        f"Rows of samples of the same seeds, with {_listed_steps()} steps from top to bottom.",
        width=960,
    )


def denoiser_path(view: View, samples: Samples) -> Path | None:
    """Return the file of the denoiser of samples; None if no finished stage has it."""
    trained = view.run.stages.get(samples.denoiser or "")
    if trained is None or trained.folder is None or not trained.has(DenoiserFile):
        return None
    return trained.folder / DenoiserFile.filename()


def reason_to_omit(view: View, stage: StageResult, samples: Samples, calls: int) -> str:
    """Return why a denoiser is not called for a report; empty if the calls are fast enough.

    A report is computed on the CPU. So its time is estimated from samples drawn on a CPU.

    Args:
        view: run of the stage.
        stage: stage that drew the samples.
        samples: samples of the stage.
        calls: number of images for which the denoiser is called.
    """
    costs = view.costs(stage)
    seconds = costs[0].seconds_per_image if costs else None
    if seconds is None or costs[0].device.partition(",")[0] != "cpu":
        return "the time of a sample on a CPU was not measured"
    expected = seconds / (samples.nfe or 1) * calls
    return f"this would take about {expected:,.0f} s" if expected > MOST_SECONDS else ""


def _listed_steps() -> str:
    return f"{', '.join(map(str, STEPS[:-1]))} and {STEPS[-1]}"


def nearest(samples: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of each sample to the nearest item of the data, and the item's index.

    Args:
        samples: samples, ``[N, *shape]``, floats in [-1, 1] or bytes.
        data: items of the data, ``[M, *shape]``, likewise.

    Returns:
        Euclidean distances ``[N]`` float64 and indices ``[N]`` int64.
    """
    flat = to_float(samples).flatten(1).double()
    best = torch.full((len(flat),), torch.inf, dtype=torch.float64)
    places = torch.zeros(len(flat), dtype=torch.int64)
    for start in range(0, len(data), _BLOCK):
        block = to_float(data[start : start + _BLOCK]).flatten(1).double()
        found, index = torch.cdist(flat, block).min(1)
        closer = found < best
        best = torch.where(closer, found, best)
        places = torch.where(closer, index + start, places)
    return best, places


def data_of(view: View, samples: Samples) -> Tensor | None:
    """Return the data on which the denoiser of samples was trained; None if it cannot be read."""
    trained = view.run.stages.get(samples.denoiser or "")
    table = dict(
        (trained.settings.get("data") if trained else None) or view.run.recipe.get("data") or {}
    )
    use = table.pop("use", None)
    if use is None:
        return None
    try:
        dataset = genkit.component("dataset", use, **table)
        return dataset.load(NoStages()).data
    except GenkitError as error:
        view.problems.append(f"the data cannot be read: {error}")
        return None
