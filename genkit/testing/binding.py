"""Contract tests of guidance, extractors and metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from genkit.artifacts import DenoiserFile, NetworkFile
from genkit.artifacts.scores import is_reserved
from genkit.designs import references
from genkit.errors import DataError
from genkit.features import Extractors, ItemReference, StageFeatures
from genkit.interfaces import (
    BoundGuidance,
    Context,
    Extractor,
    Guidance,
    Metric,
    Network,
    Stages,
    Subject,
    Trained,
)
from genkit.networks import UnknownDenoiser
from genkit.tensors import as_column, as_stored
from genkit.testing.laws import (
    LawBroken,
    items,
    require,
    require_per_item,
    require_pure,
    tensors_of,
)
from genkit.testing.workplace import workplace, writes_below
from genkit.types import Batch, DataSpec, Measurement

LEVELS = (0.002, 0.5, 80.0)
"""Noise levels at which a guidance is checked."""


def check_guidance(
    guidance: Guidance,
    spec: DataSpec,
    earlier: Stages | None = None,
    denoiser: Trained | str | None = None,
) -> None:
    """Check every law of a guidance.

    A correction has the shape, dtype and device of the denoised image, is finite and has no
    gradient.
    It is a pure function, and does not depend on the other items of a batch. All network calls are
    counted. If `adds_noise` is true, `churn` returns one amount of noise, or one per item;
    otherwise it returns the solver's amount. If there is a setting `weight`, a weight of 0 gives a
    correction of 0.

    Args:
        guidance: guidance to check.
        spec: shape and attributes of the data.
        earlier: stages to which the guidance refers, by id; they are run once.
        denoiser: guided denoiser, on the CPU; or the id of the earlier stage that writes it, to
            which the guidance refers, directly or through other stages; None for the denoiser of
            N(m, I), where every value of the mean m is the class index, or 0 without classes.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    batch = items(spec, 3)
    calls: list[object] = []
    with workplace(earlier) as place:
        inputs = place.holding(guidance)
        for name in references(guidance):
            if issubclass(place.stages[name].output or object, NetworkFile):
                module = inputs.network(name).module
                module.register_forward_hook(lambda *_: calls.append(0))
        if isinstance(denoiser, str):
            denoiser = inputs.network(denoiser)
        guided = denoiser or Trained(_Normal(), spec, Gaussian())
        guided.module.register_forward_hook(lambda *_: calls.append(0))
        bound = guidance.bind(inputs, guided)
        law = "bound-guidance: bind returns a BoundGuidance"
        require(isinstance(bound, BoundGuidance), guidance, law, type(bound).__name__)
        bound = bound.begin()
        law = "begun-guidance: begin returns a BoundGuidance"
        require(isinstance(bound, BoundGuidance), guidance, law, type(bound).__name__)
        _check_churn(guidance, bound, batch.data)
        for level in LEVELS:
            for inner in (False, True):
                _check_correction(guidance, bound, batch, torch.full((3,), level), inner)
        law = "counts-evaluations: evaluations is the number of network calls"
        # Calls of a network's methods, instead of the module itself, are not counted by hooks.
        counted = bound.evaluations
        require(counted == len(calls) or not calls, guidance, law, f"{counted} of {len(calls)}")
        if hasattr(guidance, "weight"):
            bound = replace(guidance, weight=0.0).bind(inputs, guided)  # type: ignore[call-arg]
            zero = bound.correction(batch.data, torch.ones(3), batch.labels, batch.data / 2)
            law = "weight-0: with weight 0, the correction is 0"
            require(not bool(zero.any()), guidance, law, zero)


def _check_churn(guidance: Guidance, bound: BoundGuidance, x: Tensor) -> None:
    with require_pure(guidance, x=x):
        amount = bound.churn(x, 0.25)
    if isinstance(amount, Tensor):
        law = "amount-of-noise: churn returns one number, or a nonnegative number for each item"
        sound = amount.shape == (len(x),) and bool((amount >= 0).all())
        require(sound, guidance, law, amount)
    law = "adds-noise: if adds_noise is false, churn returns the solver's amount"
    same = not isinstance(amount, Tensor) and amount == 0.25
    require(same or guidance.adds_noise, guidance, law, amount)


def _check_correction(
    guidance: Guidance, bound: BoundGuidance, batch: Batch, sigma: Tensor, inner: bool
) -> None:
    x = batch.data * (1 + sigma[0])
    denoised = batch.data / 2

    def correction(count: int = 3) -> Tensor:
        labels = None if batch.labels is None else batch.labels[:count]
        return bound.correction(x[:count], sigma[:count], labels, denoised[:count], inner=inner)

    inputs = {**tensors_of(batch), "x": x, "sigma": sigma, "denoised": denoised}
    with torch.no_grad(), require_pure(guidance, **inputs):
        whole, again, alone = correction(), correction(), correction(1)
    law = "like-denoised: a correction has the shape, dtype and device of denoised, and no gradient"
    kind = (whole.shape, whole.dtype, whole.device, whole.requires_grad)
    wanted = (denoised.shape, denoised.dtype, denoised.device, False)
    require(kind == wanted, guidance, law, kind)
    require(bool(whole.isfinite().all()), guidance, "finite: a correction is finite", whole)
    law = "same-again: the same arguments give the same correction"
    require(torch.equal(whole, again), guidance, law, "a different correction on the second call")
    require_per_item(guidance, "the correction of an item", alone, whole)


def check_extractor(extractor: Extractor, spec: DataSpec, earlier: Stages | None = None) -> None:
    """Check every law of a feature extractor.

    Features are a finite matrix, in which each row depends only on its item. Equal items and
    weights give equal features and the same `identity`; if features differ, so does `identity`.

    Args:
        extractor: extractor to check.
        spec: shape and attributes of the items.
        earlier: stages to which the extractor refers, by id; they are run with two seeds.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    batch, results = items(spec, 5), []
    for seed in (0, 0, 1) if earlier else (0, 0):
        with workplace(earlier, seed) as place:
            inputs = place.holding(extractor)
            module = extractor.bind(inputs)
            law = "bound-module: bind returns an nn.Module"
            require(isinstance(module, nn.Module), extractor, law, type(module).__name__)
            law = "has-head: if classifies is true, the module has a callable attribute head"
            has_head = callable(getattr(module, "head", None))
            require(has_head or not extractor.classifies, extractor, law, "no head")
            with torch.no_grad(), require_pure(extractor, data=batch.data):
                rows, again, alone = (module(batch.data[:count]) for count in (5, 5, 1))
            law = "row-per-item: features are a floating-point matrix with one row per item"
            require(isinstance(rows, Tensor), extractor, law, type(rows).__name__)
            shape = list(rows.shape)
            sound = rows.is_floating_point() and shape[:1] == [5] and len(shape) == 2
            require(sound, extractor, law, f"{rows.dtype} {shape}")
            require(bool(rows.isfinite().all()), extractor, "finite: features are finite", rows)
            law = "same-again: the same items have the same features"
            require(torch.equal(rows, again), extractor, law, "different ones on the second call")
            require_per_item(extractor, "the features of an item", alone, rows)
            results.append((rows, extractor.identity(inputs)))
    (one, name), (twin, its_name), *others = results
    law = "identity-is-constant: identity returns a non-empty string, the same on every call"
    require(isinstance(name, str) and name == its_name != "", extractor, law, (name, its_name))
    law = "identity-of-features: features with the same identity are equal"
    require(torch.equal(one, twin), extractor, law, "different features after a second bind")
    for other, its_name in others:
        sound = its_name != name or torch.equal(one, other)
        require(sound, extractor, law, f"different features for other weights, both {name!r}")


def subject_of(
    context: Context, samples: Batch, reference: Batch, denoiser: nn.Module | None = None
) -> Subject:
    """Return the input of a metric, as the stages `evaluate` and `sweep` pass it.

    Args:
        context: context of the stage that computes the scores.
        samples: ``[N, *shape]`` generated items; images are rounded to 8 bits.
        reference: ``[M, *shape]`` real items.
        denoiser: denoiser that drew the samples; None if unknown.
    """
    drawn = samples.with_data(as_stored(samples.data, "sample"))
    extractors = Extractors(context)
    real = ItemReference(reference, "items", extractors)
    features = StageFeatures(extractors, drawn.data, real)
    return Subject(drawn, real.batch, denoiser or UnknownDenoiser(), features)


def check_metric(metric: Metric, spec: DataSpec, earlier: Stages | None = None) -> None:
    """Check every law of a metric.

    `scores` lists the names of the returned scores, and `words` describes each. Scores are finite
    numbers, have no reserved name, and are the same on every call. The items are not modified. The
    denoiser is called only if `requires_denoiser` is true.

    Args:
        metric: metric to check.
        spec: shape and attributes of the items.
        earlier: stages to which the metric refers, by id; they are run once.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    denoiser = Gaussian() if metric.requires_denoiser else UnknownDenoiser()
    count = max(32, metric.min_samples)
    results = []
    with workplace(earlier) as place:
        context = place.holding(metric)
        subject = subject_of(context, items(spec, count), items(spec, count + 16), denoiser)
        tensors = {**tensors_of(subject.samples)}
        if subject.reference is not None:
            tensors |= {f"reference {name}": t for name, t in tensors_of(subject.reference).items()}
        for _ in range(2):
            try:
                with require_pure(metric, **tensors), writes_below(metric, place.root):
                    measurement = metric.bind(context).measure(subject, context)
            except DataError as error:
                law = "measures: measure raises no DataError for valid items, and calls the "
                law += "denoiser only if requires_denoiser is true"
                raise LawBroken(metric, law, error) from error
            law = "measurement: measure returns a Measurement"
            require(isinstance(measurement, Measurement), metric, law, type(measurement).__name__)
            results.append(measurement)
    numbers = {
        name: value for name, value in measurement.scores.items() if isinstance(value, float)
    }
    sound = bool(numbers) and numbers.keys() == measurement.scores.keys()
    sound = sound and all(value - value == 0 for value in numbers.values())
    law = "finite-scores: measure returns at least one score, and every score is a finite float"
    require(sound, metric, law, measurement.scores)
    law = "reserved-score: no score has the name of a count, or a name that ends in _std or _min"
    require(
        not any(is_reserved(str(name)) for name in measurement.scores),
        metric,
        law,
        measurement.scores,
    )
    law = "declared-scores: measure returns exactly the scores in `scores`"
    require(set(metric.scores) == set(measurement.scores), metric, law, measurement.scores)
    words = {name: metric.words(name) for name in metric.scores}
    one_line = all(isinstance(text, str) and text.isprintable() and text for text in words.values())
    require(one_line, metric, "words: words returns one line of text for every score", words)
    strings = all(isinstance(fact, str) for fact in measurement.facts.values())
    require(strings, metric, "facts-are-texts: every fact is a string", measurement.facts)
    lengths = all(curve.consistent for curve in measurement.curves.values())
    require(
        lengths, metric, "curve-length: a curve has as many values as positions", measurement.curves
    )
    law = "same-again: the same items give the same measurement"
    require(results[0] == results[1], metric, law, results)


@dataclass(frozen=True, kw_only=True)
class _Normal(Network):
    """Settings of the denoiser of N(m, I), where m is the class index, or 0 without classes."""

    output = DenoiserFile

    def build(self, spec: DataSpec) -> nn.Module:
        return Gaussian()


class Gaussian(nn.Module):
    """The denoiser D(x; sigma) = (x + sigma^2 m) / (1 + sigma^2) of N(m, I).

    Every value of the mean m is the class index, or 0 without classes.
    """

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the posterior mean of ``x``."""
        variance = as_column(sigma, x).square()
        mean = 0.0 if labels is None else as_column(labels.to(x), x)
        return (x + variance * mean) / (1 + variance)
