"""Define the artifact of scores, with their facts and curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from genkit.artifacts.artifact import Artifact
from genkit.errors import Code, DataError
from genkit.files import read_json, write_json
from genkit.types import Curve

Row = Mapping[str, Any]
"""Map from column to value: first the settings that a sweep varies, by key; then ``nfe`` and
``guidance_nfe``, the calls of denoiser and guidance networks per sample; then the scores."""

COUNTS = ("nfe", "guidance_nfe")

STD, MIN = "_std", "_min"
"""Suffixes of the columns with standard deviation and minimum of a score over sets of samples."""

SAMPLED = "samples."
"""Prefix of the names of facts about how the samples were drawn."""

MEASURED = "measured."
"""Prefix of the names of facts that a metric measured, such as a standard deviation over splits."""

FLOOR, FLOOR_ITEMS = f"{MEASURED}floor", f"{MEASURED}floor_items"
"""Names of the facts about the score of real items, compared with other real items: its value, and
the numbers of items, such as ``512 against 1285``."""

BETTER = "better"
"""Name of the fact with the better direction: ``higher`` or ``lower``; absent if there is none."""

WORDS = "words"
"""Name of the fact with the score in words."""

MAY_DIFFER = frozenset({"sets", "values", "warning", WORDS})
"""Facts that may differ between comparable scores, besides facts with the prefixes above."""


@dataclass(frozen=True)
class Scores(Artifact):
    """The scores of a stage.

    Attributes:
        rows: rows of scores, one per combination of settings.
        facts: map from score to the facts on which it depends, such as the hash of its extractor.
        curves: map from name to curve, for plots.
    """

    name = "scores"
    suffix = ".json"

    rows: Sequence[Row]
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        content = dataclasses.asdict(self)
        # Without None, so that a curve without a band has the file format of earlier versions.
        for name, curve in content["curves"].items():
            content["curves"][name] = {k: v for k, v in curve.items() if v is not None}
        write_json(path, content)

    def higher_is_better(self, score: str) -> bool | None:
        """Return whether a higher score is better; None if neither higher nor lower is."""
        return {"higher": True, "lower": False}.get(self.facts.get(score, {}).get(BETTER, ""))

    def words(self, score: str) -> str:
        """Return a score in words, such as "Fréchet distance, pixels"."""
        return self.facts.get(score, {}).get(WORDS) or score_words(score)

    def axis_label(self, score: str) -> str:
        """Return the label of an axis, such as "Fréchet distance, pixels (lower is better)"."""
        better = {True: " (higher is better)", False: " (lower is better)", None: ""}
        return self.words(score) + better[self.higher_is_better(score)]

    def floor(self, score: str) -> float | None:
        """Return the score of real items, which perfect samples would have; None if unknown."""
        with suppress(KeyError, ValueError):
            return float(self.facts[score][FLOOR])
        return None

    @classmethod
    def load(cls, path: Path) -> Scores:
        try:
            content = read_json(path)
            rows = [_checked(row) for row in content["rows"]]
            facts = {
                score: {name: str(fact) for name, fact in entry.items()}
                for score, entry in content["facts"].items()
            }
            curves = {name: _curve(entry) for name, entry in content["curves"].items()}
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} must be a file of scores, got a file that is damaged or of an earlier "
                f"version: {error}; run the recipe again",
                Code.UNREADABLE,
            ) from error
        return cls(rows, facts, curves)


def _checked(row: Row) -> Row:
    """Return a row; raise ValueError or TypeError if a count or a score is not finite."""
    for name, value in dropwhile(lambda item: item[0] not in COUNTS, row.items()):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return dict(row)


def must_agree(fact: str) -> bool:
    """Return whether a fact must be equal for two scores that are compared."""
    return fact not in MAY_DIFFER and not fact.startswith((SAMPLED, MEASURED))


def _curve(entry: Mapping[str, Any]) -> Curve:
    """Return the curve in an entry of a file; raise TypeError or ValueError if it is invalid."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    curve = Curve(**values)
    if not curve.consistent:
        raise ValueError("a curve must have one value per position")
    return curve


def score_words(score: str) -> str:
    """Return the name of a score as words, such as "class agreement"."""
    return score.replace("_", " ")


def is_reserved(score: str) -> bool:
    """Return whether a name is reserved for a count, or for a standard deviation or a min."""
    return score in COUNTS or score.endswith((STD, MIN))


def scores_in(row: Row) -> list[str]:
    """Return the score columns of a row, without the columns of standard deviation and min."""
    spread = {f"{name}{ending}" for name in row for ending in (STD, MIN)}
    apart = {*settings_of([row]), *COUNTS}
    return [name for name in row if name not in apart and name not in spread]


def settings_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns with settings that a sweep varies, which are those before the counts."""
    return list(dict.fromkeys(c for row in rows for c in takewhile(lambda c: c not in COUNTS, row)))
