"""What evaluate and sweep share: measuring samples, and the files that hold scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genkit.errors import DataError, InterruptedRun, Problem
from genkit.files import write_json
from genkit.interfaces import Context, Dataset, Metric, Stage, Stages, Subject
from genkit.report.results import SCORES
from genkit.tensors import decoded
from genkit.types import Batch, Curve, Measurement


def comparison_problems(data: Dataset, sampling: Stage, earlier: Stages) -> Iterator[Problem]:
    """Yield what keeps the samples of a stage from being compared with data."""
    denoiser = earlier.get(getattr(sampling, "denoiser", ""))
    imitated = getattr(denoiser, "data", data)
    try:
        made, real = imitated.spec().shape, data.spec().shape
    except DataError:
        return  # reported where the data is named
    if made != real:
        reason = f"items of shape {real} cannot be compared with samples of shape {made}"
        yield Problem(("data",), reason, "name data of the shape that the denoiser was trained on")


def load_reference(data: Dataset, context: Context) -> Batch:
    """Return the items to compare with, images in [-1, 1]."""
    items = data.load(context)
    return items.with_data(decoded(items.data))


def measure(metrics: Sequence[Metric], subject: Subject, context: Context) -> Measurement:
    """Return what all metrics found, as one; every process measures, with its share or alone.

    Raises:
        DataError: two metrics give a score of one name, or a score is not finite.
    """
    scores: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    facts: dict[str, str] = {}
    for number, metric in enumerate(metrics):
        if context.stop_requested():
            raise InterruptedRun(f"{number} of {len(metrics)} metrics")
        found = metric.measure(subject, context)
        for name, value in found.scores.items():
            if name in scores:
                raise DataError(f'two metrics give the score "{name}"; leave one out')
            if value - value != 0:
                raise DataError(f'the score "{name}" is {value}')
            scores[name] = value
        curves.update(found.curves)
        facts.update(found.facts)
    return Measurement(scores, curves, facts)


def write_scores(
    context: Context, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, str]
) -> None:
    """Write the table of a stage, one row a setting."""
    write_json(context.folder / SCORES, {"rows": list(rows), "facts": dict(facts)})
