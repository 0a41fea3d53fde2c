"""Rows of scores that may be compared, and the scores that may not be, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genkit.artifacts import SamplingCost, SamplingCosts
from genkit.artifacts.scores import (
    COUNTS,
    MIN,
    STD,
    must_agree,
    settings_of,
)
from genkit.errors import Code, UsageError
from genkit.settings import near_match, quote
from genkit_compare.selection import Group, Member


@dataclass(frozen=True)
class Row:
    """One set of samples that was scored: a stage, or a cell of a sweep.

    Attributes:
        member: the stage.
        settings: settings that a sweep varied, by key path.
        scores: value by name; of several sets the mean.
        spread: standard deviation over the sets, by name; absent for one set.
        minimum: minimum over the sets, by name; absent for one set.
        nfe: calls of the denoiser for each sample.
        guidance_nfe: calls of guidance networks for each sample.
        cost: what each sample cost; None where it was not recorded.
    """

    member: Member
    settings: Mapping[str, Any]
    scores: Mapping[str, float]
    spread: Mapping[str, float]
    minimum: Mapping[str, float]
    nfe: float | None
    guidance_nfe: float | None
    cost: SamplingCost | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a group.

    Attributes:
        title: ids of the stages.
        scores: scores that may be compared, in the order of the recipes.
        rows: rows of each member, in its order.
    """

    title: str
    scores: Sequence[str]
    rows: Sequence[Row]

    @property
    def settings(self) -> list[str]:
        """The settings that a sweep varied."""
        return list(dict.fromkeys(key for row in self.rows for key in row.settings))

    @property
    def calls_differ(self) -> bool:
        """Whether the denoisers differ in the arithmetic of a call."""
        calls = {row.cost.gflop_per_call for row in self.rows if row.cost} - {None}
        return len(calls) > 1

    @property
    def devices_differ(self) -> bool:
        """Whether samples were drawn on several kinds of device."""
        return len({row.cost.device for row in self.rows if row.cost}) > 1


@dataclass(frozen=True)
class Refusal:
    """A score that may not be compared.

    Attributes:
        stage: ids of the stages.
        score: its name.
        reason: what differs, both values, and what to do.
    """

    stage: str
    score: str
    reason: str

    def __str__(self) -> str:
        return f"{self.score} of {self.stage}: {self.reason}"


def compared(
    groups: Sequence[Group], score: str | None = None
) -> tuple[list[Table], list[Refusal]]:
    """Return the tables, and what is left out of them.

    Args:
        groups: the stages.
        score: the only score to compare; None for all.

    Raises:
        UsageError: no stage has the score, or none may be compared.
    """
    known = list(dict.fromkeys(name for group in groups for name in _names(group)))
    if score is not None and score not in known:
        hint = near_match(score, known) or f"they have {', '.join(known) or 'none'}"
        raise UsageError(
            f"--score must be a score of the runs, got {quote(score)}; {hint}", Code.UNKNOWN_CHOICE
        )
    tables, refusals = [], []
    for group in groups:
        names = [name for name in _names(group) if score in (None, name)]
        refused = [
            Refusal(group.title, name, reason) for name in names if (reason := _reason(group, name))
        ]
        kept = [name for name in names if name not in {one.score for one in refused}]
        if not any(len(_having(group, name)) > 1 for name in kept):
            for name in kept:
                reason = f"only {_having(group, name)[0].label} has this score"
                refused.append(Refusal(group.title, name, reason))
            kept = []
        refusals += refused
        if kept:
            tables.append(Table(group.title, kept, list(_rows(group, kept))))
    if not tables:
        listed = "".join(f"\n  {refusal}" for refusal in refusals)
        raise UsageError(
            f"no score of these runs can be compared:{listed or ' they have none'}", Code.CONFLICT
        )
    return tables, refusals


def _names(group: Group) -> list[str]:
    return list(dict.fromkeys(name for member in group.members for name in member.names))


def _having(group: Group, score: str) -> list[Member]:
    return [member for member in group.members if score in member.names]


def _reason(group: Group, score: str) -> str:
    """Return why a score may not be compared among the members that have it; empty if it may."""
    if len(group.members) == 1:
        return f"only {group.members[0].label} has a finished stage of this id"
    members = _having(group, score)
    facts = [_facts(member, score) for member in members]
    reasons = []
    for name in dict.fromkeys(name for found in facts for name in found):
        values = [found.get(name) for found in facts]
        other = next((k for k, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            first, second = (_told(values[k], members[k]) for k in (0, other))
            reasons.append(f"{name} must be the same, got {first} and {second}")
    if not reasons:
        return ""
    return f"{'; '.join(reasons)}; score both alike, or leave one of them out"


def _facts(member: Member, score: str) -> dict[str, str]:
    """Return the facts of a score that must agree."""
    found = member.scores.facts.get(score, {})
    return {name: value for name, value in found.items() if must_agree(name)}


def _told(value: str | None, member: Member) -> str:
    return f"{'none recorded' if value is None else value} in {member.label}"


def _rows(group: Group, names: Sequence[str]) -> Iterator[Row]:
    sets = {name: {_sets(member, name) for member in group.members} for name in names}
    minima = [name for name in names if len(sets[name]) == 1]  # the least of more sets is less
    for member in group.members:
        varied = settings_of(member.scores.rows)
        costs = _costs(member)
        for index, row in enumerate(member.scores.rows):
            nfe, guidance_nfe = (row.get(name) for name in COUNTS)
            yield Row(
                member,
                {key: row[key] for key in varied if key in row},
                {name: row[name] for name in names if name in row},
                {name: row[name + STD] for name in names if name + STD in row},
                {name: row[name + MIN] for name in minima if name + MIN in row},
                nfe,
                guidance_nfe,
                costs[index] if costs else None,
            )


def _sets(member: Member, score: str) -> str:
    """Return the number of sets that were scored: 3 of ``3 of 10: the first 90 of 300 samples``."""
    return member.scores.facts.get(score, {}).get("sets", "").partition(" ")[0]


def _costs(member: Member) -> Sequence[SamplingCost]:
    """Return the cost of each row; none where it was not recorded."""
    costs = member.stage.read(SamplingCosts).rows if member.stage.has(SamplingCosts) else ()
    return costs if len(costs) == len(member.scores.rows) else ()
