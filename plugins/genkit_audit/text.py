"""Format audits as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from genkit.artifacts import CouplingStatistics
from genkit.start import CORRECTIONS
from genkit_audit.measure import Audit, Pairing
from genkit_audit.noise import ClassSkew, Gaussianity
from genkit_audit.prediction import Prediction, StartLimits

_SHOWN = 8  # number of directions in the table
_EXACT = 1e-6  # gaps up to this size are rounding errors


def report_of(audit: Audit, start: StartLimits) -> dict[str, Any]:
    """Return an audit as a JSON object; parts that were not measured are None."""
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
    declarations += [f"preserves_conditional_prior given {', '.join(given)}"] if given else []
    yield f"Declared: {', '.join(declarations) or 'nothing'}"
    if statistics is None:
        yield (
            "Statistics: none recorded, since noise is independent of the images; every start at a "
            "high noise level is safe"
            if coupling.independent
            else "Statistics: none recorded; audit the recipe of the training instead"
        )
        return
    pools = f"{statistics.pools:,} pool{'s' if statistics.pools != 1 else ''}"
    yield f"Measured: {statistics.pairs:,} pairs of {pools}"
    yield ""
    yield from _directions(statistics, start)
    yield ""
    yield from _start(statistics, start)
    if not coupling.independent:
        covariance = f"{statistics.covariance:.4f}"
        yield (
            f"Mean covariance of a pixel and its noise: {covariance}; a network can use it with "
            f'preconditioner = {{ use = "coupled", covariance = {covariance} }}'
        )
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
        "For the leading principal directions of the images: standard deviation of the images; "
        "correlation"
    )
    yield (
        f"of image and noise (standard error {error:.3f}); standard deviation of samples relative "
        "to images for each"
    )
    yield f"start, for the optimal linear denoiser from sigma {start.sigma_max:g}"
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
            f"Start {name + ':':<16} error of the standard deviation at most "
            f"{_percent(abs(effect.worst - 1))}, Fréchet distance of pixels {effect.frechet:.3g}; "
            f"safe (error within {_percent(start.tolerance)}) for sigma_max of at least "
            f"{effect.lowest_sigma_max:.3g}"
        )
    share = 100 * statistics.share_from_noise
    yield f"Share of the images' variance that is predictable from the noise: {share:.0f} %"


def _pairing(pairing: Pairing, pairs: int) -> Iterator[str]:
    gap = "" if pairing.gap is None else f", at most {_percent(pairing.gap)} above the minimum"
    if pairing.gap is not None and pairing.gap <= _EXACT:
        gap = ", which is the minimum"
    yield (
        f"Cost: mean distance {pairing.cost_before:.4g} with random pairs and "
        f"{pairing.cost_after:.4g} with assigned noise, {_percent(pairing.reduction)} less{gap}"
    )
    yield from _noise(pairing.noise)
    yield (
        f"Uses of noise: effective number of noise samples {pairing.noises:,.0f} for {pairs:,} "
        f"pairs ({100 * pairing.noises / pairs:.0f} %)"
    )
    if pairing.skew is not None:
        yield _skew(pairing.skew)
    if pairing.entropy is not None:
        yield (
            f"Entropy of the transport plan: {pairing.entropy:.3f} (0: a permutation, 1: "
            "independent; renormalized as in arXiv 2506.05526)"
        )


def _noise(noise: Gaussianity) -> Iterator[str]:
    figures = {
        "mean": f"mean {noise.mean:.4f}",
        "variance": f"variance {noise.variance:.4f}",
        "worst_mean": f"mean of the worst dimension {noise.worst_mean:.3f}",
        "kurtosis": f"excess kurtosis of the worst leading direction {noise.kurtosis:.3f}",
    }
    errors = [
        f"{text} ({noise.errors[name]:+.1f} standard errors)" for name, text in figures.items()
    ]
    yield f"Assigned noise: {'; '.join(errors)}"
    violations = [figures[name] for name in noise.violations]
    yield (
        f"  The noise is not N(0, I), for which this is improbable: {' and '.join(violations)}"
        if violations
        else "  These tests do not distinguish the noise from N(0, I)"
    )


def _skew(skew: ClassSkew) -> str:
    verdict = (
        "the noise depends on the class; do not train a class-conditional network on these pairs"
        if skew.error > skew.limit
        else "not distinguishable from N(0, I)"
    )
    return (
        f"Classes: the mean noise of class {skew.label} deviates most from 0, with norm "
        f"{skew.length:.3g} along the leading directions, {skew.error:+.1f} standard errors from "
        f"the norm for N(0, I): {verdict}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
