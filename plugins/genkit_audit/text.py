"""Format an audit as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from genkit.artifacts import CouplingStatistics
from genkit.start import CORRECTIONS
from genkit_audit.measure import Audit, Pairing
from genkit_audit.noise import ClassSkew, Gaussianity
from genkit_audit.prediction import Prediction, StartLimits

_SHOWN = 8  # directions in the table
_EXACT = 1e-6  # gaps up to this size are rounding errors


def report_of(audit: Audit, start: StartLimits) -> dict[str, Any]:
    """Return an audit as JSON; parts that were not measured are None."""
    statistics, pairing = audit.statistics, audit.pairing
    return {
        "subject": audit.subject,
        "coupling": audit.coupling.table(),
        "statistics": statistics
        and {
            **asdict(statistics),
            "correlations": statistics.correlations,
            "share_from_noise": statistics.share_from_noise,
        },
        "start": statistics
        and {
            **asdict(start),
            **{name: asdict(Prediction.of(statistics, start, name)) for name in CORRECTIONS},
        },
        "pairing": pairing
        and {
            **asdict(pairing),
            "reduction": pairing.reduction,
            "gaussian": not pairing.noise.violations,
        },
    }


def lines_of(audit: Audit, start: StartLimits) -> list[str]:
    """Return an audit as lines of text."""
    return [audit.subject, *(f"  {line}" if line else "" for line in _body(audit, start))]


def _body(audit: Audit, start: StartLimits) -> Iterator[str]:
    coupling, statistics = audit.coupling, audit.statistics
    names = "bijective", "preserves_noise_marginal", "independent", "preserves_score"
    declarations = [name for name in names if getattr(coupling, name)]
    given = coupling.preserves_conditional_prior
    declarations += [f"preserves_conditional_prior of {', '.join(given)}"] if given else []
    yield f"Declared: {', '.join(declarations) or 'nothing'}"
    if statistics is None:
        yield (
            "Statistics: none recorded, since noise is independent of the images; any start at a "
            "high noise level is safe"
            if coupling.independent
            else "Statistics: none recorded; audit the recipe of its training instead"
        )
        return
    yield f"Measured: {statistics.pairs:,} pairs of {statistics.pools:,} pools"
    yield ""
    yield from _directions(statistics, start)
    yield ""
    yield from _start(statistics, start)
    if audit.pairing is not None:
        yield ""
        yield from _pairing(audit.pairing, statistics.pairs)


def _directions(statistics: CouplingStatistics, start: StartLimits) -> Iterator[str]:
    """Yield a table of the leading directions."""
    if not statistics.deviations:
        yield "The images do not vary."
        return
    ratios = [statistics.spread_of_samples(start.sigma_max, k) for k in CORRECTIONS.values()]
    error = statistics.pairs**-0.5
    yield (
        "Leading principal directions of the images; correlation with the noise (standard error "
        f"{error:.3f});"
    )
    yield (
        "standard deviation of samples over the images', for a perfect linear flow from sigma "
        f"{start.sigma_max:g}"
    )
    yield f"{'':>9} {'deviation':>10} {'correlation':>12}" + "".join(
        f" {name:>15}" for name in CORRECTIONS
    )
    columns = (statistics.deviations, statistics.correlations, *ratios)
    for number, (s, rho, *spreads) in enumerate(zip(*columns, strict=True), 1):
        if number <= _SHOWN:
            ends = "".join(f" {ratio:>15.3f}" for ratio in spreads)
            yield f"{number:>9} {s:>10.3f} {rho:>12.3f}{ends}"
    if len(statistics.deviations) > _SHOWN:
        yield f"{'...':>9} {len(statistics.deviations)} directions were measured"


def _start(statistics: CouplingStatistics, start: StartLimits) -> Iterator[str]:
    """Yield the effect of each start, and the minimum noise level at which it is safe."""
    for name in CORRECTIONS:
        effect = Prediction.of(statistics, start, name)
        yield (
            f"Start {name + ':':<16} spread off by at most {_percent(abs(effect.worst - 1))}, "
            f"Fréchet distance over pixels {effect.frechet:.3g}; safe for sigma_max of at least "
            f"{effect.lowest_sigma_max:.3g} (within {_percent(start.tolerance)})"
        )
    share = 100 * statistics.share_from_noise
    yield f"Variance of an image that its noise alone predicts: {share:.0f} %"
    covariance = statistics.covariance
    yield (
        f"Covariance of a pixel with its noise: {covariance:.4f}, as in "
        f'preconditioner = {{ use = "coupled", covariance = {covariance:.4f} }}'
    )


def _pairing(pairing: Pairing, pairs: int) -> Iterator[str]:
    gap = "" if pairing.gap is None else f", at most {_percent(pairing.gap)} above the minimum"
    if pairing.gap is not None and pairing.gap <= _EXACT:
        gap = ", which is the minimum"
    yield (
        f"Cost: mean distance {pairing.cost_before:.4g} without and {pairing.cost_after:.4g} with "
        f"the coupler, {_percent(pairing.reduction)} less{gap}"
    )
    yield from _noise(pairing.noise)
    yield (
        f"Uses: {pairing.noises:,.0f} effective noise samples for {pairs:,} pairs"
        f" ({100 * pairing.noises / pairs:.0f} %)"
    )
    if pairing.skew is not None:
        yield _skew(pairing.skew)
    if pairing.entropy is not None:
        yield (
            f"Entropy of the plan: {pairing.entropy:.3f} (0: a permutation, 1: independent; "
            "renormalized as in arXiv 2506.05526)"
        )


def _noise(noise: Gaussianity) -> Iterator[str]:
    figures = {
        "mean": f"mean {noise.mean:.4f}",
        "variance": f"variance {noise.variance:.4f}",
        "worst_mean": f"worst mean of a dimension {noise.worst_mean:.3f}",
        "kurtosis": f"worst excess kurtosis of a leading direction {noise.kurtosis:.3f}",
    }
    errors = [
        f"{text} ({noise.errors[name]:+.1f} standard errors)" for name, text in figures.items()
    ]
    yield f"Assigned noise: {'; '.join(errors)}"
    violations = [figures[name] for name in noise.violations]
    yield (
        f"  It is not N(0, I): {' and '.join(violations)} would be improbable"
        if violations
        else "  These tests cannot distinguish it from N(0, I)"
    )


def _skew(skew: ClassSkew) -> str:
    verdict = (
        "the noise of a class is skewed; do not train a class-conditional network on these pairs"
        if skew.error > skew.limit
        else "not distinguishable from N(0, I)"
    )
    return (
        f"Classes: the noise of class {skew.label} is skewed most, with a mean of norm "
        f"{skew.length:.3g} along the leading directions, {skew.error:+.1f} standard errors from "
        f"that of N(0, I): {verdict}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
