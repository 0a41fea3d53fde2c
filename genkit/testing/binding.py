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
    denoiser: Trained | None = None,
) -> None:
    """Check every law of a guidance.

    A correction has shape, dtype and device of the denoised image, is finite and has no gradient.
    It is a pure function, and does not depend on the other items of a batch. All network calls are
    counted. The amount of noise of a step is unchanged, or one per item if `adds_noise` is true. A
    setting `weight` of 0 gives no correction.

    Args:
        guidance: guidance to check.
        spec: shape and attributes of the data.
        earlier: stages to which it refers, by id; they are run once.
        denoiser: guided denoiser, on the CPU; None for that of Gaussian data, whose mean is the
            class.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    batch = items(spec, 3)
    calls: list[object] = []
    with workplace(earlier) as place:
        inputs = place.holding(guidance)
        for name in references(guidance):
            if issubclass(place.stages[name].output or object, NetworkFile):
                module = inputs.network(name).module
                module.register_forward_hook(lambda *_: calls.append(0))
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
        law = "counts-evaluations: evaluations is the number of calls of its networks"
        # Calls of a network's methods, instead of the module itself, are not counted by hooks.
        counted = bound.evaluations
        require(counted == len(calls) or not calls, guidance, law, f"{counted} of {len(calls)}")
        if hasattr(guidance, "weight"):
            bound = replace(guidance, weight=0.0).bind(inputs, guided)  # type: ignore[call-arg]
            found = bound.correction(batch.data, torch.ones(3), batch.labels, batch.data / 2)
            require(not bool(found.any()), guidance, "weight-0: it gives no correction", found)


def _check_churn(guidance: Guidance, bound: BoundGuidance, x: Tensor) -> None:
    with require_pure(guidance, x=x):
        amount = bound.churn(x, 0.25)
    if isinstance(amount, Tensor):
        law = "amount-of-noise: it is one number, or for each item one of at least 0"
        sound = amount.shape == (len(x),) and bool((amount >= 0).all())
        require(sound, guidance, law, amount)
    law = "adds-noise: without it the amount of noise is that of the solver"
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

    given = {**tensors_of(batch), "x": x, "sigma": sigma, "denoised": denoised}
    with torch.no_grad(), require_pure(guidance, **given):
        found, again, alone = correction(), correction(), correction(1)
    law = "like-denoised: a correction has its shape, type and device, and no gradient"
    kind = (found.shape, found.dtype, found.device, found.requires_grad)
    wanted = (denoised.shape, denoised.dtype, denoised.device, False)
    require(kind == wanted, guidance, law, kind)
    require(bool(found.isfinite().all()), guidance, "finite: a correction is finite", found)
    law = "same-again: the same arguments give the same correction"
    require(torch.equal(found, again), guidance, law, "another on a second call")
    require_per_item(guidance, "the correction of an item", alone, found)


def check_extractor(extractor: Extractor, spec: DataSpec, earlier: Stages | None = None) -> None:
    """Check every law of a feature extractor.

    Features are a finite matrix with a row per item that depends only on this item. Equal items and
    weights give equal features and the same identity; other features have another identity.

    Args:
        extractor: extractor to check.
        spec: shape and attributes of the items.
        earlier: stages to which it refers, by id; they are run with two seeds.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    batch, seen = items(spec, 5), []
    for seed in (0, 0, 1) if earlier else (0, 0):
        with workplace(earlier, seed) as place:
            inputs = place.holding(extractor)
            module = extractor.bind(inputs)
            law = "bound-module: bind returns a module"
            require(isinstance(module, nn.Module), extractor, law, type(module).__name__)
            law = "has-head: the module of an extractor that classifies has a head"
            has_head = callable(getattr(module, "head", None))
            require(has_head or not extractor.classifies, extractor, law, "none")
            with torch.no_grad(), require_pure(extractor, data=batch.data):
                found, again, alone = (module(batch.data[:count]) for count in (5, 5, 1))
            law = "row-per-item: features are a matrix with a row for each item"
            require(isinstance(found, Tensor), extractor, law, type(found).__name__)
            shape = list(found.shape)
            sound = found.is_floating_point() and shape[:1] == [5] and len(shape) == 2
            require(sound, extractor, law, f"{found.dtype} {shape}")
            require(bool(found.isfinite().all()), extractor, "finite: features are finite", found)
            law = "same-again: the same items have the same features"
            require(torch.equal(found, again), extractor, law, "others on a second call")
            require_per_item(extractor, "what an item gives", alone, found)
            seen.append((found, extractor.identity(inputs)))
    (one, name), (twin, its_name), *others = seen
    law = "identity-is-constant: its identity is a text that does not change"
    require(isinstance(name, str) and name == its_name != "", extractor, law, (name, its_name))
    law = "identity-of-features: features of one identity are the same"
    require(torch.equal(one, twin), extractor, law, "others when it was bound again")
    for other, its_name in others:
        sound = its_name != name or torch.equal(one, other)
        require(sound, extractor, law, f"others for other weights, both {name!r}")


def subject_of(
    context: Context, samples: Batch, reference: Batch, denoiser: nn.Module | None = None
) -> Subject:
    """Return the input of a metric, as the stages `evaluate` and `sweep` pass it.

    Args:
        context: context of the stage that measures.
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

    Scores are finite numbers by name, the same on every call, with no reserved name. The items are
    not modified. The denoiser is called only if `requires_denoiser` is true.

    Args:
        metric: metric to check.
        spec: shape and attributes of the items.
        earlier: stages to which it refers, by id; they are run once.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    denoiser = Gaussian() if metric.requires_denoiser else UnknownDenoiser()
    count = max(32, metric.min_samples)
    seen = []
    with workplace(earlier) as place:
        context = place.holding(metric)
        subject = subject_of(context, items(spec, count), items(spec, count + 16), denoiser)
        given = {**tensors_of(subject.samples)}
        if subject.reference is not None:
            given |= {f"reference {name}": t for name, t in tensors_of(subject.reference).items()}
        for _ in range(2):
            try:
                with require_pure(metric, **given), writes_below(metric, place.root):
                    found = metric.bind(context).measure(subject, context)
            except DataError as error:
                law = "measures: sound items are, without the denoiser unless requires_denoiser"
                raise LawBroken(metric, law, error) from error
            law = "measurement: measure returns a Measurement"
            require(isinstance(found, Measurement), metric, law, type(found).__name__)
            seen.append(found)
    numbers = {name: value for name, value in found.scores.items() if isinstance(value, float)}
    sound = bool(numbers) and numbers.keys() == found.scores.keys()
    sound = sound and all(value - value == 0 for value in numbers.values())
    require(sound, metric, "finite-scores: scores are finite numbers by name", found.scores)
    law = "reserved-score: no score has the name of a count, or ends like the columns of its spread"
    require(not any(is_reserved(str(name)) for name in found.scores), metric, law, found.scores)
    declared = set(metric.scores) == set(found.scores)
    require(declared, metric, "declared-scores: it has those alone", found.scores)
    texts = all(isinstance(fact, str) for fact in found.facts.values())
    require(texts, metric, "facts-are-texts: facts are texts by name", found.facts)
    lengths = all(curve.consistent for curve in found.curves.values())
    require(lengths, metric, "curve-length: a curve has as many values as positions", found.curves)
    require(seen[0] == seen[1], metric, "same-again: the same items have the same scores", seen)


@dataclass(frozen=True, kw_only=True)
class _Normal(Network):
    """The denoiser of N(class, I), and of N(0, I) without classes."""

    output = DenoiserFile

    def build(self, spec: DataSpec) -> nn.Module:
        return Gaussian()


class Gaussian(nn.Module):
    """The denoiser of N(m, I), where D(x; sigma) = (x + sigma^2 m) / (1 + sigma^2); m is the class.

    Without classes m is 0.
    """

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the posterior mean of ``x``."""
        variance = as_column(sigma, x).square()
        mean = 0.0 if labels is None else as_column(labels.to(x), x)
        return (x + variance * mean) / (1 + variance)
