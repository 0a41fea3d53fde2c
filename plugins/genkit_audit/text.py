"""An audit as text for people and as JSON for programs."""

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
_EXACT = 1e-6  # a gap up to here is rounding


def report_of(audit: Audit, start: StartLimits) -> dict[str, Any]:
    """Return an audit as JSON; what was not measured is None."""
    found, pairing = audit.statistics, audit.pairing
    return {
        "subject": audit.subject,
        "coupling": audit.coupling.table(),
        "statistics": found
        and {
            **asdict(found),
            "correlations": found.correlations,
            "share_from_noise": found.share_from_noise,
        },
        "start": found
        and {
            **asdict(start),
            **{known: asdict(Prediction.of(found, start, known)) for known in CORRECTIONS},
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
    coupling, found = audit.coupling, audit.statistics
    names = "bijective", "preserves_noise_marginal", "independent", "preserves_score"
    holds = [name for name in names if getattr(coupling, name)]
    given = coupling.preserves_conditional_prior
    holds += [f"preserves_conditional_prior of {', '.join(given)}"] if given else []
    yield f"Declared: {', '.join(holds) or 'nothing'}"
    if found is None:
        yield (
            "Statistics: none recorded, since noise is independent of the images; any start at a "
            "high noise level is safe"
            if coupling.independent
            else "Statistics: none recorded; audit the recipe of its training instead"
        )
        return
    yield f"Measured: {found.pairs:,} pairs, {found.pools:,} of the pools"
    yield ""
    yield from _directions(found, start)
    yield ""
    yield from _start(found, start)
    if audit.pairing is not None:
        yield ""
        yield from _pairing(audit.pairing, found.pairs)


def _directions(found: CouplingStatistics, start: StartLimits) -> Iterator[str]:
    """Yield a table of the leading directions."""
    if not found.deviations:
        yield "The images do not vary."
        return
    ratios = [found.spread_of_samples(start.sigma_max, k) for k in CORRECTIONS.values()]
    error = found.pairs**-0.5
    yield (
        "Leading principal directions of the images; correlation with the noise (standard error "
        f"{error:.3f});"
    )
    yield (
        "standard deviation of samples over the images', for a perfect linear flow from sigma "
        f"{start.sigma_max:g}"
    )
    yield f"{'':>9} {'deviation':>10} {'correlation':>12}" + "".join(
        f" {known:>15}" for known in CORRECTIONS
    )
    columns = (found.deviations, found.correlations, *ratios)
    for number, (s, rho, *shown) in enumerate(zip(*columns, strict=True), 1):
        if number <= _SHOWN:
            ends = "".join(f" {ratio:>15.3f}" for ratio in shown)
            yield f"{number:>9} {s:>10.3f} {rho:>12.3f}{ends}"
    if len(found.deviations) > _SHOWN:
        yield f"{'...':>9} {len(found.deviations)} directions were measured"


def _start(found: CouplingStatistics, start: StartLimits) -> Iterator[str]:
    """Yield what each start does, and from which noise level on it is safe."""
    for known in CORRECTIONS:
        one = Prediction.of(found, start, known)
        yield (
            f"Start {known + ':':<16} spread off by {_percent(abs(one.worst - 1))} at most, "
            f"Fréchet distance over pixels {one.frechet:.3g}; safe from sigma_max "
            f"{one.lowest_sigma_max:.3g} on (within {_percent(start.tolerance)})"
        )
    share = 100 * found.share_from_noise
    yield f"Variance of an image that its noise alone predicts: {share:.0f} %"
    yield (
        f"Covariance of a pixel with its noise: {found.covariance:.4f}, as in "
        f'preconditioner = {{ use = "coupled", covariance = {found.covariance:.4f} }}'
    )


def _pairing(found: Pairing, pairs: int) -> Iterator[str]:
    proof = "" if found.gap is None else f", at most {_percent(found.gap)} above the minimum"
    if found.gap is not None and found.gap <= _EXACT:
        proof = ", which is the minimum"
    yield (
        f"Cost: mean distance {found.cost_before:.4g} without and {found.cost_after:.4g} with the "
        f"coupler, {_percent(found.reduction)} less{proof}"
    )
    yield from _noise(found.noise)
    yield (
        f"Uses: {found.noises:,.0f} effective noise samples for {pairs:,} pairs"
        f" ({100 * found.noises / pairs:.0f} %)"
    )
    if found.skew is not None:
        yield _skew(found.skew)
    if found.entropy is not None:
        yield (
            f"Entropy of the plan: {found.entropy:.3f} (0: a permutation, 1: independent; "
            "renormalized as in arXiv 2506.05526)"
        )


def _noise(found: Gaussianity) -> Iterator[str]:
    figures = {
        "mean": f"mean {found.mean:.4f}",
        "variance": f"variance {found.variance:.4f}",
        "worst_mean": f"worst mean of a dimension {found.worst_mean:.3f}",
        "kurtosis": f"worst excess kurtosis of a leading direction {found.kurtosis:.3f}",
    }
    told = [f"{text} ({found.errors[name]:+.1f} errors)" for name, text in figures.items()]
    yield f"Assigned noise: {'; '.join(told)}"
    wrong = [figures[name] for name in found.violations]
    yield (
        f"  It is not N(0, I): {' and '.join(wrong)} would be improbable"
        if wrong
        else "  It cannot be distinguished from N(0, I) by these"
    )


def _skew(found: ClassSkew) -> str:
    verdict = (
        "the noise of a class is skewed; do not train a class-conditional network on these pairs"
        if found.error > found.limit
        else "not distinguishable from N(0, I)"
    )
    return (
        f"Classes: noise of class {found.label} is skewed most, its mean {found.length:.3g} long "
        f"along leading directions, {found.error:+.1f} errors from that of N(0, I): {verdict}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
