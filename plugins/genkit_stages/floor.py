"""Score real items against the other real items, as an estimate of the score of perfect samples.

A finite number of samples has a positive Fréchet distance even if their distribution is that of the
data. So a score is read against its floor: the score of n real items, as many as there are samples
in a set, compared with the other N - n real items. Samples are compared with all N items. So the
Fréchet distance of perfect samples is slightly lower than the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from genkit.artifacts.scores import FLOOR, FLOOR_ITEMS
from genkit.artifacts.statistics import Statistics
from genkit.designs import outermost
from genkit.errors import InterruptedRun
from genkit.features import Extractors, Reference, StageFeatures
from genkit.interfaces import BoundMetric, Context, Extractor, Metric, Subject
from genkit.networks import UnknownDenoiser
from genkit.plugin.registry import in_words
from genkit.random import generator
from genkit.types import Batch
from genkit_stages.measuring import measure

SEED = 0
"""Seed of the choice of real items, so that it is the same in all runs with the same data."""

Facts = dict[str, dict[str, str]]
"""Map from score to its facts."""


def measure_floors(
    metrics: Sequence[tuple[Metric, BoundMetric]],
    reference: Reference,
    extractors: Extractors,
    count: int,
    context: Context,
) -> Facts:
    """Return the facts of each score about its floor: its value, and the numbers of items.

    Left out are the scores of metrics that call the denoiser or have no reference, and all scores
    if the reference has fewer than ``2 * count`` items. An error of a metric is logged as a
    warning, since the floor must not end a run whose scores are computed. Collective.

    Args:
        metrics: metrics, each with the result of its ``bind``.
        reference: reference with which samples are compared.
        extractors: extractors of the stage.
        count: number of samples of a set, which is the number of real items that are scored.
        context: context of the stage.

    Raises:
        InterruptedRun: the user stopped the run; a resumed run measures the scores again.
    """
    real = reference.batch
    if real is None or len(real) < 2 * count:
        return {}
    order = torch.randperm(len(real), generator=generator(SEED, "floor"))
    scored = _Part(reference, real[order[:count]], order[:count])
    others = _Part(reference, real[order[count:]], order[count:])
    features = _RealFeatures(extractors, scored.batch.data, others, scored=scored)
    subject = Subject(scored.batch, others.batch, UnknownDenoiser(), features)
    items = f"{len(scored.batch)} against {len(others.batch)}"
    facts: Facts = {}
    for metric, bound in metrics:
        if metric.requires_denoiser or not metric.min_reference:
            continue
        if context.stop_requested():  # a result without the floor would depend on the stop
            raise InterruptedRun("the scores of real items are not complete")
        # Collective, so before the metric, which only rank 0 computes: an error on one rank would
        # otherwise leave the others waiting.
        for _, extractor in outermost(metric, Extractor):
            reference.features(extractor)
        scores = context.world.on_main(partial(_scores, metric, bound, subject, context))
        facts |= {k: {FLOOR: f"{v:.6g}", FLOOR_ITEMS: items} for k, v in scores.items()}
    return facts


def _scores(
    metric: Metric, bound: BoundMetric, subject: Subject, context: Context
) -> Mapping[str, float]:
    """Return the scores of real items, computed by this process alone; empty after an error."""
    try:
        return measure(metric, bound, subject, context.single_process()).scores
    except Exception as error:  # noqa: BLE001
        names = ", ".join(metric.scores)
        context.warn(f"{names} of real items cannot be computed: {in_words(error)}")
        return {}


class _Part(Reference):
    """Some items of a reference, whose features are selected from those of the reference.

    Args:
        whole: reference with items.
        items: selected items.
        index: ``[K]`` indices of the selected items.
    """

    def __init__(self, whole: Reference, items: Batch, index: Tensor) -> None:
        self.batch: Batch = items
        self.identity = f"{len(items)} items of {whole.identity}"
        self._whole = whole
        self._index = index
        self._statistics: dict[Extractor, Statistics] = {}

    def features(self, extractor: Extractor) -> Tensor:
        return self._whole.features(extractor)[self._index]

    def statistics(self, extractor: Extractor) -> Statistics:
        if extractor not in self._statistics:
            self._statistics[extractor] = Statistics.of(self.features(extractor))
        return self._statistics[extractor]


@dataclass(frozen=True, kw_only=True)
class _RealFeatures(StageFeatures):
    """Features of real items in place of samples.

    Attributes:
        scored: real items that are scored.
    """

    scored: Reference

    def of_samples(self, extractor: Extractor) -> Tensor:
        return self.scored.features(extractor)
