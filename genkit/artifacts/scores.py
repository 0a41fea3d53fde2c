"""Scores, what each depends on, and curves."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from genkit.artifacts.artifact import Artifact
from genkit.errors import Code, DataError
from genkit.files import write_json
from genkit.types import Curve

Row = Mapping[str, Any]
"""One line of scores: the settings that were varied by key path, then ``nfe`` and
``guidance_nfe``, the network calls for each sample of denoiser and guidance, then the scores."""

COUNTS = ("nfe", "guidance_nfe")

STD, MIN = "_std", "_min"
"""Endings of the columns with the standard deviation and the minimum over sets of a score."""

SAMPLED = "samples."
"""Beginning of the names of facts that say how the samples were drawn."""

MEASURED = "measured."
"""Beginning of the names of facts that a metric measured too, such as a deviation over parts."""

BETTER = "better"
"""Name of a fact: ``higher`` or ``lower``, whichever is better; absent where neither is."""

MAY_DIFFER = frozenset({"sets", "values", "warning"})
"""Facts in which scores that are compared may differ, besides those of the two beginnings."""


@dataclass(frozen=True)
class Scores(Artifact):
    """The scores of a stage.

    Attributes:
        rows: one for each setting that was scored.
        facts: what a score depends on, such as the hash of its feature extractor, by score.
        curves: lines for plots, by name.
    """

    name = "scores"
    suffix = ".json"

    rows: Sequence[Row]
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        content = dataclasses.asdict(self)
        # A curve without a band is written as before there were bands.
        for name, curve in content["curves"].items():
            content["curves"][name] = {k: v for k, v in curve.items() if v is not None}
        write_json(path, content)

    def higher_is_better(self, score: str) -> bool | None:
        """Whether a higher score is better, as of a precision; None where neither is."""
        return {"higher": True, "lower": False}.get(self.facts.get(score, {}).get(BETTER, ""))

    @classmethod
    def load(cls, path: Path) -> Scores:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = [_checked(row) for row in content["rows"]]
            facts = {
                score: {name: str(fact) for name, fact in found.items()}
                for score, found in content["facts"].items()
            }
            curves = {name: _curve(entry) for name, entry in content["curves"].items()}
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} must be a file of scores, and is damaged or of an earlier version: "
                f"{error}; run the recipe again",
                Code.UNREADABLE,
            ) from error
        return cls(rows, facts, curves)


def _checked(row: Row) -> Row:
    """Return a row; raises ValueError or TypeError unless counts and scores are finite numbers."""
    for name, value in dropwhile(lambda item: item[0] not in COUNTS, row.items()):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return dict(row)


def must_agree(fact: str) -> bool:
    """Whether two scores can be compared only if a fact of this name is the same."""
    return fact not in MAY_DIFFER and not fact.startswith((SAMPLED, MEASURED))


def _curve(entry: Mapping[str, Any]) -> Curve:
    """Return the curve of an entry of a file; raises TypeError or ValueError for another entry."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    curve = Curve(**values)
    if not curve.consistent:
        raise ValueError("a curve has no value for a position")
    return curve


def is_reserved(score: str) -> bool:
    """Whether another column may have this name: a count, or the spread of a score over sets."""
    return score in COUNTS or score.endswith((STD, MIN))


def scores_in(row: Row) -> list[str]:
    """Return the columns of a row's scores, without those of their spread over sets."""
    spread = {f"{name}{ending}" for name in row for ending in (STD, MIN)}
    apart = {*settings_of([row]), *COUNTS}
    return [name for name in row if name not in apart and name not in spread]


def settings_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of the settings that were varied: those before the counts."""
    return list(dict.fromkeys(c for row in rows for c in takewhile(lambda c: c not in COUNTS, row)))
