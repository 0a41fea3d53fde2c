"""Check metrics before a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from genkit.artifacts.scores import is_reserved
from genkit.blame import require_type
from genkit.designs import outermost
from genkit.errors import Code, Problem
from genkit.interfaces import Dataset, Design, Extractor, Metric
from genkit.types import DataSpec


def metric_problems(
    metrics: Sequence[Metric], denoiser: Design | None, varied: Collection[str] = ()
) -> Iterator[Problem]:
    """Yield the problems of metrics that do not depend on the number of samples.

    Args:
        metrics: value of a component's setting ``metrics``.
        denoiser: design of the denoiser that draws the samples; None if unknown.
        varied: column names of the settings that a sweep varies.
    """
    if not metrics:
        hint = 'write metrics = [{ use = "frechet" }]'
        yield Problem(("metrics",), "must have at least 1 item, got []", hint, Code.WRONG_LENGTH)
    without_classes = denoiser is not None and denoiser.classes == 0
    named: dict[str, int] = {}
    for index, metric in enumerate(metrics):
        key = ("metrics", index)
        if metric.requires_labels and without_classes:
            reason = "requires class-conditional samples, but the denoiser has no classes"
            hint = "write class_conditional = true in its network, or remove the metric"
            yield Problem(key, reason, hint, Code.MISSING_ATTRIBUTE)
        if metric in metrics[:index]:
            reason, hint = "must not repeat an earlier metric", "remove one of the two"
            yield Problem(key, reason, hint, Code.DUPLICATE)
            continue
        for score in metric.scores:
            if is_reserved(score) or score in varied:
                reason = f'must not return the score "{score}", a name of another column'
                yield Problem(key, reason, "choose another name", Code.INVALID_NAME)
            if named.setdefault(score, index) != index:
                other = f"metrics[{named[score]}]"
                reason = f'must not return the score "{score}", which {other} returns'
                yield Problem(key, reason, "move one to another stage", Code.DUPLICATE)


def count_problems(metrics: Sequence[Metric], count: int, where: str = "") -> Iterator[Problem]:
    """Yield a problem for each metric that requires more than ``count`` samples.

    Args:
        metrics: value of a component's setting ``metrics``.
        count: number of samples that are measured at a time.
        where: place of the setting ``count``, for the hint, such as ``in stage samples``.
    """
    for index, metric in enumerate(metrics):
        if count < metric.min_samples:
            reason = f"requires at least {metric.min_samples} samples, got {count}"
            yield Problem(("metrics", index), reason, f"write a larger count {where}".rstrip())


def data_problems(
    metrics: Sequence[Metric],
    data: Dataset | None,
    denoiser: Design | None,
    networks: Mapping[str, Design],
) -> Iterator[Problem]:
    """Yield a problem for each reason that prevents metrics from comparing samples with data.

    Args:
        metrics: value of a component's setting ``metrics``.
        data: value of the component's setting ``data``; None if it is not set.
        denoiser: design of the denoiser that draws the samples; None if unknown.
        networks: designs of the networks that earlier stages write, keyed by stage id.

    Raises:
        DataError: the data is missing or corrupt.
    """
    if data is None:
        hint = 'write data = { use = "..." }, here or at the top of the recipe'
        yield Problem(("data",), "missing: real items to compare with", hint, Code.MISSING_KEY)
        return
    count = data.item_count()
    for index, metric in enumerate(metrics):
        if count is not None and count < metric.min_reference:
            reason = f"requires at least {metric.min_reference} reference items, got {count}"
            hint = "name a larger data set, or remove the metric"
            yield Problem(("metrics", index), reason, hint)
    spec = require_type(data, "spec", data.spec(), DataSpec)
    yield from item_problems(metrics, spec, networks)
    if denoiser is not None and denoiser.spec.shape != spec.shape:
        yield Problem(
            ("data",),
            f"must be items of the samples' shape {denoiser.spec.shape}, got {spec.shape}",
            "name data with the shape of the denoiser's training data",
        )


def item_problems(
    metrics: Sequence[Metric], spec: DataSpec, networks: Mapping[str, Design]
) -> Iterator[Problem]:
    """Yield a problem for each metric or extractor that does not support the items.

    Args:
        metrics: value of a component's setting ``metrics``.
        spec: specification of the items that are compared.
        networks: designs of the networks that earlier stages write, keyed by stage id.
    """
    for index, metric in enumerate(metrics):
        yield from (problem.under("metrics", index) for problem in metric.check_items(spec))
        for below, extractor in outermost(metric, Extractor):
            problems = extractor.check_items(spec, networks)
            yield from (problem.under("metrics", index, *below) for problem in problems)
