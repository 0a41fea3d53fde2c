"""Measure samples against data, in one or several sets."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import SupportsFloat

from genkit.artifacts import Samples
from genkit.artifacts.scores import BETTER, MIN, SAMPLED, STD
from genkit.blame import fault, forbid_changes
from genkit.designs import outermost
from genkit.errors import Code, DataError, InterruptedRun
from genkit.features import Extractors, Reference, StageFeatures
from genkit.interfaces import (
    BoundMetric,
    Callback,
    Context,
    Extractor,
    Metric,
    Subject,
)
from genkit.networks import UnknownDenoiser
from genkit.types import Curve, Measurement

ROUNDED = "images clipped to [-1, 1] and rounded to 8 bits"
UNCHANGED = "vectors as they are"


@dataclass(frozen=True)
class Measured:
    """Results of all metrics.

    Attributes:
        scores: by name; of several sets the mean, followed by the columns of its spread.
        facts: what a score depends on, by score.
        curves: by name, of the first set.
        pictures: PNG files by name, of the first set.
    """

    scores: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """Measures samples with the metrics of a stage.

    Attributes:
        context: context of the stage that measures.
        metrics: metrics as the recipe has them, and what their ``bind`` returned.
        reference: what the samples are compared with.
        extractors: extractors of the stage.
        sets: equal parts of the samples, each measured by itself.
        tolerance: share of its mean within which a score must be known for no more sets to be
            measured, with a confidence of 95 %; None measures all.
    """

    context: Context
    metrics: Sequence[tuple[Metric, BoundMetric]]
    reference: Reference
    extractors: Extractors
    sets: int = 1
    tolerance: float | None = None

    def measure(self, samples: Samples) -> Measured:
        """Return the results of all metrics. Collective: every rank must call this.

        Raises:
            DataError: the result of a metric is invalid, a metric changes the subject, samples and
                reference differ in shape, or the samples cannot be split into the sets.
        """
        self._require_comparable(samples)
        if missing := sorted({"sampler", "seeds"} - samples.facts.keys()):
            self.context.warn(
                f"the samples do not state their {' and '.join(missing)}, so that nothing tells "
                "whether their scores can be compared; state them in the facts of Samples"
            )
        context, sets = self.context, self.sets
        trained = context.network(samples.denoiser) if samples.denoiser else None
        denoiser = trained.module if trained else UnknownDenoiser()
        features = StageFeatures(self.extractors, samples.batch.data, self.reference)
        size = len(samples.batch) // sets
        found: list[list[Measurement]] = [[] for _ in self.metrics]
        for number in range(sets):
            for index, (metric, bound) in enumerate(self.metrics):
                if metric.requires_denoiser and number:
                    continue  # measured with all samples
                if context.stop_requested():
                    done = number * len(self.metrics) + index
                    raise InterruptedRun(f"{done} of {sets * len(self.metrics)} metrics")
                whole = metric.requires_denoiser
                part = slice(None) if whole else slice(number * size, (number + 1) * size)
                batch = samples.batch[part]
                subject = Subject(
                    batch,
                    self.reference.batch,
                    denoiser,
                    replace(features, part=part),
                    trained.coupling if trained else None,
                )
                with forbid_changes(metric, samples=batch, reference=self.reference.batch):
                    result = bound.measure(subject, context)
                    found[index].append(checked(metric, result))
            if self._certain(found):
                break
        measured = Measured()
        for (metric, _), results in zip(self.metrics, found, strict=True):
            self._add(measured, metric, results, samples)
        return measured

    def _require_comparable(self, samples: Samples) -> None:
        count, sets = len(samples.batch), self.sets
        if count % sets:
            raise DataError(
                f"sets must divide the number of samples, {count}, got {sets}; write another value",
                Code.WRONG_LENGTH,
            )
        if self.reference.batch is None:
            return
        drawn, real = samples.batch.data.shape[1:], self.reference.batch.data.shape[1:]
        if drawn != real:
            raise DataError(
                f"data must be items of the samples' shape {tuple(drawn)}, got {tuple(real)}; name "
                "data of the shape that the denoiser was trained on",
                Code.WRONG_SHAPE,
            )

    def _certain(self, found: Sequence[Sequence[Measurement]]) -> bool:
        """Whether the scores of enough sets are known, within the tolerance of the stage."""
        if self.tolerance is None:
            return False
        from scipy.stats import t  # slow to import

        for results in found:
            if len(results) < 2:  # a metric that is measured once has no spread
                continue
            if len(results) < 3:
                return False
            for values in _by_score(results).values():
                quantile = float(t.ppf(0.975, len(values) - 1))
                half = quantile * statistics.stdev(values) / math.sqrt(len(values))
                if half > self.tolerance * abs(statistics.fmean(values)):
                    return False
        return any(len(results) >= 3 for results in found)

    def _add(
        self, measured: Measured, metric: Metric, results: Sequence[Measurement], samples: Samples
    ) -> None:
        facts = {**self._facts(metric, samples, len(results)), **results[0].facts}
        for warning in dict.fromkeys(w for result in results for w in result.warnings):
            self.context.warn(warning)
            facts["warning"] = f"{facts['warning']}; {warning}" if "warning" in facts else warning
        for name, values in _by_score(results).items():
            measured.scores[name] = statistics.fmean(values)
            measured.facts[name] = facts
            if self.sets > 1 and not metric.requires_denoiser:
                measured.scores[f"{name}{STD}"] = statistics.stdev(values)
                if not metric.higher_is_better:  # else it would be the worst set
                    measured.scores[f"{name}{MIN}"] = min(values)
                measured.facts[name] = {**facts, "values": ", ".join(f"{v:.6g}" for v in values)}
        measured.curves.update(results[0].curves)
        measured.pictures.update(results[0].pictures)

    def _facts(self, metric: Metric, samples: Samples, sets: int) -> dict[str, str]:
        """Return what the scores of a metric depend on, besides what it says itself."""
        identities = [e.identity(self.context) for _, e in outermost(metric, Extractor)]
        facts = {"extractor": "; ".join(identities)} if identities else {}
        # An extractor stands for itself: its settings may differ where its features do not.
        settings = {
            name: value
            for name, value in self.context.describe(metric).items()
            if not isinstance(getattr(metric, name, None), Extractor)
        }
        facts["metric"] = json.dumps(settings, sort_keys=True)
        if (higher := metric.higher_is_better) is not None:
            facts[BETTER] = "higher" if higher else "lower"
        sampled = {f"{SAMPLED}{name}": fact for name, fact in samples.facts.items()}
        if metric.requires_denoiser:  # it is a score of the denoiser, not of the samples
            drawn = f"{SAMPLED}denoiser"
            return facts | {name: fact for name, fact in sampled.items() if name == drawn}
        real, size = self.reference.batch, len(samples.batch) // self.sets
        facts |= {
            "protocol": ROUNDED if samples.batch.data.ndim == 4 else UNCHANGED,
            "data": self.reference.identity,
            "samples": str(size),
        }
        if real is not None:
            facts["reference"] = str(len(real))
        if self.sets > 1:
            facts["sets"] = str(sets)
            if sets < self.sets:
                done, count = sets * size, len(samples.batch)
                facts["sets"] += f" of {self.sets}: the first {done} of {count} samples"
        return facts | sampled


def _by_score(results: Sequence[Measurement]) -> dict[str, list[float]]:
    return {name: [result.scores[name] for result in results] for name in results[0].scores}


def checked(part: Metric | Callback, found: object) -> Measurement:
    """Return the result of a metric or a callback, its scores as floats.

    Args:
        part: component whose result it is.
        found: its result.

    Raises:
        DataError: it is invalid, or a score is not finite; names the component and its plugin.
    """
    if not isinstance(found, Measurement) or not isinstance(found.scores, Mapping):
        raise fault(part, f"must return a Measurement of scores by name, got {found!r:.60}")
    if isinstance(part, Metric) and set(found.scores) != set(part.scores):
        wanted, got = (
            ", ".join(map(str, names)) or "none" for names in (part.scores, found.scores)
        )
        raise fault(part, f"must return the scores that it declares, {wanted}, got {got}")
    scores = {name: _number(value) for name, value in found.scores.items()}
    for name, number in scores.items():
        if not math.isfinite(number):
            value = found.scores[name]
            reason = f'must return a finite number as score "{name}", got {value!r:.60}'
            code = Code.NOT_FINITE if isinstance(value, float) else Code.INVALID_RESULT
            raise fault(part, reason, code)
    measurement = replace(found, scores=scores)
    try:
        json.dumps(asdict(replace(measurement, pictures={})), allow_nan=False)
    except (TypeError, ValueError) as error:  # a tensor, or a number that is not finite
        raise fault(
            part, f"must return facts as texts and curves of finite floats, got others: {error}"
        ) from error
    for name, curve in found.curves.items():
        if not curve.consistent:
            raise fault(part, f'must return a value for each position of curve "{name}"')
    return measurement


def _number(value: object) -> float:
    """Return a number, a NumPy number or a tensor of one as a float; NaN for all others."""
    try:
        return float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors of several numbers
        return math.nan
