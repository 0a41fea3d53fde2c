"""What keeps metrics from measuring samples, found before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from genkit.artifacts.scores import is_reserved
from genkit.designs import held
from genkit.errors import Code, Problem
from genkit.interfaces import Design, Extractor, Metric
from genkit.types import DataSpec


def metric_problems(
    metrics: Sequence[Metric],
    count: int | None,
    denoisers: Iterable[Design],
    where: str = "",
    varied: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield why metrics cannot measure samples.

    Args:
        metrics: metrics of a component, in its setting ``metrics``.
        count: number of samples that are measured at a time; None where it is unknown.
        denoisers: the denoiser that draws the samples; none where it is unknown.
        where: what the count is part of, for the hint, such as ``in stage samples``.
        varied: columns of the settings that a sweep varies.
    """
    without_classes = any(denoiser.classes == 0 for denoiser in denoisers)
    named: dict[str, int] = {}
    for index, metric in enumerate(metrics):
        key = ("metrics", index)
        if metric.requires_labels and without_classes:
            reason = "requires samples of classes, and the denoiser is given none"
            hint = "write class_conditional = true in its network, or leave the metric out"
            yield Problem(key, reason, hint, Code.MISSING_ATTRIBUTE)
        if count is not None and count < metric.min_samples:
            reason = f"requires at least {metric.min_samples} samples, got {count}"
            yield Problem(key, reason, f"write a larger count {where}".rstrip())
        if metric in metrics[:index]:
            reason, hint = "must differ from the metrics above", "leave one of the two out"
            yield Problem(key, reason, hint, Code.DUPLICATE)
            continue
        for score in metric.scores:
            if is_reserved(score) or score in varied:
                reason = f'must not give the score "{score}", which is the name of another column'
                yield Problem(key, reason, "give it another name", Code.INVALID_NAME)
            if named.setdefault(score, index) != index:
                reason = f'gives the score "{score}", as metrics[{named[score]}] does'
                yield Problem(key, reason, "measure one elsewhere", Code.DUPLICATE)


def item_problems(
    metrics: Sequence[Metric], spec: DataSpec, networks: Mapping[str, Design]
) -> Iterator[Problem]:
    """Yield why metrics cannot measure items, or their extractors have no features of them.

    Args:
        metrics: metrics of a component, in its setting ``metrics``.
        spec: items that are compared.
        networks: networks that earlier stages write, by id.
    """
    for index, metric in enumerate(metrics):
        yield from (problem.under("metrics", index) for problem in metric.check_items(spec))
        for below, extractor in held(metric, Extractor):
            problems = extractor.check_items(spec, networks)
            yield from (problem.under("metrics", index, *below) for problem in problems)
