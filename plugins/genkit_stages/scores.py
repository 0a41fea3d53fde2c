"""Compute metrics that compare one or several sets of samples with data."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from genkit.artifacts import Samples
from genkit.artifacts.scores import BETTER, MIN, SAMPLED, STD, WORDS
from genkit.blame import require_type
from genkit.designs import outermost
from genkit.errors import Code, DataError, InterruptedRun
from genkit.features import Extractors, Reference, StageFeatures
from genkit.interfaces import (
    BoundMetric,
    Context,
    Extractor,
    Metric,
    Subject,
)
from genkit.networks import UnknownDenoiser
from genkit.types import Curve, Measurement
from genkit_stages.floor import Facts, measure_floors
from genkit_stages.measuring import measure

ROUNDED = "images clipped to [-1, 1] and rounded to 8 bits"
UNCHANGED = "vectors as they are"


@dataclass(frozen=True)
class Measured:
    """Results of all metrics.

    Attributes:
        scores: scores by name; with several sets, their mean, standard deviation and minimum.
        facts: for each score name, the facts on which the score depends.
        curves: curves of the first set by name.
        pictures: PNG files of the first set by name.
    """

    scores: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """Measure samples with the metrics of a stage.

    Attributes:
        context: context of the stage.
        metrics: metrics of the recipe, each with the result of its ``bind``.
        reference: reference to compare samples with.
        extractors: extractors of the stage.
        sets: number of equal parts of the samples, each measured separately.
        tolerance: maximum half width of every score's 95 % confidence interval, relative to the
            score. Once it is reached, no more sets are measured. If None, all sets are measured.
        floors: for each number of samples in a set, the facts about the floors of all scores.
    """

    context: Context
    metrics: Sequence[tuple[Metric, BoundMetric]]
    reference: Reference
    extractors: Extractors
    sets: int = 1
    tolerance: float | None = None
    floors: dict[int, Facts] = field(default_factory=dict, repr=False)

    def measure(self, samples: Samples) -> Measured:
        """Return the results of all metrics. Collective: every rank must call this.

        Raises:
            DataError: the result of a metric is invalid, a metric modifies its arguments, samples
                and reference differ in shape, or ``sets`` does not divide the samples.
        """
        self._require_comparable(samples)
        if missing := sorted({"sampler", "seeds"} - samples.facts.keys()):
            self.context.warn(
                f"the facts of the samples lack {' and '.join(missing)}, so their scores cannot "
                "be checked for comparability; add these to the facts of Samples"
            )
        context, sets = self.context, self.sets
        trained = context.network(samples.denoiser) if samples.denoiser else None
        denoiser = trained.module if trained else UnknownDenoiser()
        features = StageFeatures(self.extractors, samples.batch.data, self.reference)
        size = len(samples.batch) // sets
        results: list[list[Measurement]] = [[] for _ in self.metrics]
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
                results[index].append(measure(metric, bound, subject, context))
            if self._is_certain(results):
                break
        measured = Measured()
        for (metric, _), of_metric in zip(self.metrics, results, strict=True):
            self._add(measured, metric, of_metric, samples)
        if size not in self.floors:
            parts = self.metrics, self.reference, self.extractors, size, self.context
            self.floors[size] = measure_floors(*parts)
        for name, facts in measured.facts.items():
            measured.facts[name] = {**facts, **self.floors[size].get(name, {})}
        return measured

    def _require_comparable(self, samples: Samples) -> None:
        count, sets = len(samples.batch), self.sets
        if count % sets:
            raise DataError(
                f"sets must divide the number of samples, {count}, got {sets}; write a divisor",
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

    def _is_certain(self, results: Sequence[Sequence[Measurement]]) -> bool:
        """Return whether the confidence intervals of all scores are within the tolerance."""
        if self.tolerance is None:
            return False
        from scipy.stats import t  # slow to import

        for of_metric in results:
            if len(of_metric) < 2:  # measured once: no standard deviation
                continue
            if len(of_metric) < 3:  # the interval of 2 values is too uncertain itself
                return False
            for values in _by_score(of_metric).values():
                quantile = float(t.ppf(0.975, len(values) - 1))
                half = quantile * statistics.stdev(values) / math.sqrt(len(values))
                if half > self.tolerance * abs(statistics.fmean(values)):
                    return False
        return any(len(of_metric) >= 3 for of_metric in results)

    def _add(
        self, measured: Measured, metric: Metric, results: Sequence[Measurement], samples: Samples
    ) -> None:
        facts = {**self._facts(metric, samples, len(results)), **results[0].facts}
        for warning in dict.fromkeys(w for result in results for w in result.warnings):
            self.context.warn(warning)
            facts["warning"] = f"{facts['warning']}; {warning}" if "warning" in facts else warning
        for name, values in _by_score(results).items():
            facts = {**facts, WORDS: require_type(metric, "words", metric.words(name), str)}
            measured.scores[name] = statistics.fmean(values)
            measured.facts[name] = facts
            if self.sets > 1 and not metric.requires_denoiser:
                measured.scores[f"{name}{STD}"] = statistics.stdev(values)
                if not metric.higher_is_better:  # otherwise the minimum is the worst set
                    measured.scores[f"{name}{MIN}"] = min(values)
                measured.facts[name] = {**facts, "values": ", ".join(f"{v:.6g}" for v in values)}
        measured.curves.update(results[0].curves)
        measured.pictures.update(results[0].pictures)

    def _facts(self, metric: Metric, samples: Samples, sets: int) -> dict[str, str]:
        """Return the facts on which the scores of a metric depend, except those in its results."""
        identities = [e.identity(self.context) for _, e in outermost(metric, Extractor)]
        facts = {"extractor": "; ".join(identities)} if identities else {}
        # Extractors are identified above: different settings may give the same features.
        settings = {
            name: value
            for name, value in self.context.describe(metric).items()
            if not isinstance(getattr(metric, name, None), Extractor)
        }
        facts["metric"] = json.dumps(settings, sort_keys=True)
        if (higher := metric.higher_is_better) is not None:
            facts[BETTER] = "higher" if higher else "lower"
        sampled = {f"{SAMPLED}{name}": fact for name, fact in samples.facts.items()}
        if metric.requires_denoiser:  # scores that do not depend on the samples
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
