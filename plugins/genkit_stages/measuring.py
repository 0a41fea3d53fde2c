"""Measure metrics, and check the results of metrics and callbacks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import SupportsFloat

from genkit.blame import fault, forbid_changes
from genkit.errors import Code
from genkit.interfaces import BoundMetric, Context, Metric, Subject
from genkit.types import Measurement


def measure(metric: Metric, bound: BoundMetric, subject: Subject, context: Context) -> Measurement:
    """Return the checked result of a metric.

    Args:
        metric: metric.
        bound: result of its ``bind``.
        subject: samples and reference, which the metric must not modify.
        context: context of the stage.

    Raises:
        DataError: the metric modifies its arguments, or its result is invalid or not finite.
    """
    with forbid_changes(metric, samples=subject.samples, reference=subject.reference):
        return check_measurement(metric, bound.measure(subject, context))


def check_measurement(part: object, result: object) -> Measurement:
    """Check the result of a metric or a callback, and return it with its scores as floats.

    Args:
        part: metric, callback or function that returned the result.
        result: object that it returned.

    Raises:
        DataError: the result is invalid, or a score is not finite; the error names the component
            and its plugin.
    """
    if not isinstance(result, Measurement) or not isinstance(result.scores, Mapping):
        raise fault(part, f"must return a Measurement with a dict of scores, got {result!r:.60}")
    if isinstance(part, Metric) and set(result.scores) != set(part.scores):
        declared, got = (
            ", ".join(map(str, names)) or "none" for names in (part.scores, result.scores)
        )
        raise fault(part, f"must return the scores that it declares, {declared}, got {got}")
    scores = {name: _number(value) for name, value in result.scores.items()}
    for name, number in scores.items():
        if not math.isfinite(number):
            value = result.scores[name]
            reason = f'must return a finite number as score "{name}", got {value!r:.60}'
            code = Code.NOT_FINITE if isinstance(value, float) else Code.INVALID_RESULT
            raise fault(part, reason, code)
    measurement = replace(result, scores=scores)
    try:
        json.dumps(asdict(replace(measurement, pictures={})), allow_nan=False)
    except (TypeError, ValueError) as error:  # a tensor, or a number that is not finite
        raise fault(
            part, f"must return facts as strings and curves of finite floats: {error}"
        ) from error
    for name, curve in result.curves.items():
        if not curve.consistent:
            raise fault(part, f'must return one value for each position of curve "{name}"')
    return measurement


def _number(value: object) -> float:
    """Return a number, a NumPy scalar or a one-element tensor as a float; NaN for all others."""
    try:
        return float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors of several elements
        return math.nan
