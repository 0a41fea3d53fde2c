"""What evaluate and sweep share: measuring samples against data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import SupportsFloat

from genkit.artifacts import Samples
from genkit.blame import refused, unchanged
from genkit.designs import design_behind, designs, held
from genkit.errors import Code, DataError, InterruptedRun, Problem
from genkit.interfaces import (
    BoundMetric,
    Context,
    Dataset,
    Extractor,
    Metric,
    SamplingStage,
    Stages,
    Subject,
)
from genkit.networks import Unknown
from genkit.tensors import decoded
from genkit.types import Batch, Curve, Measurement


def comparison_problems(
    samples: str, data: Dataset, metrics: Sequence[Metric], earlier: Stages
) -> Iterator[Problem]:
    """Yield what keeps the samples of a stage from being compared with data by metrics."""
    stage = earlier[samples]
    for index, metric in enumerate(metrics):
        key = ("metrics", index)
        if metric.requires_denoiser and stage.drawn_by(earlier) is None:
            yield Problem(
                key,
                f"calls the denoiser behind the samples, and stage {samples} names none",
                "leave the metric out, or choose a stage that samples a denoiser",
            )
        if isinstance(stage, SamplingStage) and stage.count < metric.min_samples:
            reason = f"requires at least {metric.min_samples} samples, got {stage.count}"
            yield Problem(key, reason, f"write a larger count in stage {samples}")
        if metric in metrics[:index]:
            reason, hint = "must differ from the metrics above", "leave one of the two out"
            yield Problem(key, reason, hint, Code.DUPLICATE)
    # A DataError of either is reported where the data is named.
    spec, networks = data.spec(), designs(earlier, earlier)
    for index, metric in enumerate(metrics):
        for below, extractor in held(metric, Extractor):
            problems = extractor.check_items(spec, networks)
            yield from (problem.under("metrics", index, *below) for problem in problems)
    shape, denoiser = spec.shape, design_behind(samples, earlier)
    if denoiser is not None and denoiser.spec.shape != shape:
        yield Problem(
            ("data",),
            f"must be items of the samples' shape {denoiser.spec.shape}, got {shape}",
            "name data of the shape that the denoiser was trained on",
        )


@dataclass(frozen=True)
class Measured:
    """What all metrics found, as one.

    Attributes:
        scores: by name.
        facts: what a score depends on, by score.
        curves: by name.
    """

    scores: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


def measure(
    metrics: Sequence[tuple[Metric, BoundMetric]],
    samples: Samples,
    reference: Batch,
    context: Context,
) -> Measured:
    """Return what all metrics found; collective: each metric measures with its share or alone.

    Args:
        metrics: metrics as the recipe has them and what their ``bind`` returned, at least one.
        samples: generated items.
        reference: real items, images in [-1, 1].
        context: of the stage that measures.

    Raises:
        DataError: two metrics give a score of one name, the result of a metric is invalid, a
            metric changes the subject, or the items of samples and reference differ in shape.
    """
    made, real = samples.batch.data.shape[1:], reference.data.shape[1:]
    if made != real:
        raise DataError(
            f"data must be items of the samples' shape {tuple(made)}, got {tuple(real)}; name data "
            "of the shape that the denoiser was trained on",
            Code.WRONG_SHAPE,
        )
    denoiser = context.network(samples.denoiser).module if samples.denoiser else Unknown()
    subject = Subject(samples.batch, reference, denoiser)
    measured = Measured()
    for number, (metric, bound) in enumerate(metrics):
        if context.stop_requested():
            raise InterruptedRun(f"{number} of {len(metrics)} metrics")
        with unchanged(metric, samples=samples.batch, reference=reference):
            found = _checked(metric, bound.measure(subject, context))
        for name, value in found.scores.items():
            if name in measured.scores:
                raise DataError(f'two metrics give the score "{name}"; leave one out')
            measured.scores[name] = value
            measured.facts[name] = dict(found.facts)
        measured.curves.update(found.curves)
    return measured


def _checked(metric: Metric, found: object) -> Measurement:
    """Return the result of a metric, its scores as floats.

    Raises:
        DataError: it is invalid; names the metric and its plugin.
    """
    if not isinstance(found, Measurement) or not isinstance(found.scores, Mapping):
        raise refused(metric, f"must return a Measurement of scores by name, got {found!r:.60}")
    scores = {name: _number(value) for name, value in found.scores.items()}
    for name, number in scores.items():
        if not math.isfinite(number):
            value = f"{found.scores[name]!r:.60}"
            raise refused(metric, f'must return a finite number as score "{name}", got {value}')
    measurement = replace(found, scores=scores)
    try:
        json.dumps(asdict(measurement), allow_nan=False)
    except (TypeError, ValueError) as error:  # a tensor, or a number that is not finite
        raise refused(
            metric, f"must return facts as texts and curves of finite floats, got others: {error}"
        ) from error
    return measurement


def _number(value: object) -> float:
    """Return a number, a NumPy number or a tensor of one as a float; NaN for all others."""
    try:
        return float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors of several numbers
        return math.nan


def load_reference(data: Dataset, context: Context) -> Batch:
    """Return the items to compare with, images in [-1, 1]."""
    items = data.load(context)
    return items.with_data(decoded(items.data))
