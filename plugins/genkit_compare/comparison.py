"""Tables of comparable scores, and the scores that are not comparable, with the reasons."""

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
    """Scores of a stage, or of one combination of settings in a sweep.

    Attributes:
        member: stage with its run.
        settings: dict from the key path of each setting that a sweep varied to its value.
        scores: dict from the name of each score to its value, or its mean over several sets of
            samples.
        spread: dict from the name of each score to its standard deviation over the sets; without
            scores of a single set.
        minimum: dict from the name of each score to its minimum over the sets; without scores of a
            single set.
        nfe: calls of the denoiser per sample.
        guidance_nfe: calls of guidance networks per sample.
        cost: cost of a sample; None if it was not recorded.
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
    """Comparable scores of a group of stages.

    Attributes:
        title: ids of the stages.
        scores: names of the comparable scores, in the order of the recipes.
        rows: rows of all stages, in the order of the stages.
    """

    title: str
    scores: Sequence[str]
    rows: Sequence[Row]

    @property
    def settings(self) -> list[str]:
        """Key paths of the settings that a sweep varied."""
        return list(dict.fromkeys(key for row in self.rows for key in row.settings))

    @property
    def calls_differ(self) -> bool:
        """Whether the arithmetic of a call differs between the denoisers."""
        calls = {row.cost.gflop_per_call for row in self.rows if row.cost} - {None}
        return len(calls) > 1

    @property
    def devices_differ(self) -> bool:
        """Whether samples were drawn on different types of device."""
        return len({row.cost.device for row in self.rows if row.cost}) > 1


@dataclass(frozen=True)
class Exclusion:
    """A score that is not comparable.

    Attributes:
        stage: ids of the stages.
        score: name of the score.
        reason: facts that differ, with two different values of each, and a remedy.
    """

    stage: str
    score: str
    reason: str

    def __str__(self) -> str:
        return f"{self.score} of {self.stage}: {self.reason}"


def make_tables(
    groups: Sequence[Group], score: str | None = None
) -> tuple[list[Table], list[Exclusion]]:
    """Return the tables of comparable scores, and the excluded scores.

    Args:
        groups: groups of stages.
        score: name of the only score to compare; None for all scores.

    Raises:
        UsageError: no stage has the score, or no score is comparable.
    """
    available = list(dict.fromkeys(name for group in groups for name in _names(group)))
    if score is not None and score not in available:
        hint = near_match(score, available) or f"write one of: {', '.join(available) or 'none'}"
        raise UsageError(
            f"--score must be a score of the runs, got {quote(score)}; {hint}", Code.UNKNOWN_CHOICE
        )
    tables, exclusions = [], []
    for group in groups:
        names = [name for name in _names(group) if score in (None, name)]
        reasons = {name: _reason(group, name) for name in names}
        excluded = [Exclusion(group.title, name, why) for name, why in reasons.items() if why]
        comparable = [name for name, why in reasons.items() if not why]
        if not any(len(_members_with(group, name)) > 1 for name in comparable):
            for name in comparable:
                reason = f"only {_members_with(group, name)[0].label} has this score"
                excluded.append(Exclusion(group.title, name, reason))
            comparable = []
        exclusions += excluded
        if comparable:
            tables.append(Table(group.title, comparable, list(_rows(group, comparable))))
    if not tables:
        lines = "".join(f"\n  {exclusion}" for exclusion in exclusions)
        raise UsageError(
            f"the runs must have comparable scores, got none{':' if lines else ''}{lines}",
            Code.CONFLICT,
        )
    return tables, exclusions


def _names(group: Group) -> list[str]:
    return list(dict.fromkeys(name for member in group.members for name in member.names))


def _members_with(group: Group, score: str) -> list[Member]:
    return [member for member in group.members if score in member.names]


def _reason(group: Group, score: str) -> str:
    """Return the reason why the values of a score are not comparable; empty if they are.

    Only the stages that have the score are considered.
    """
    if len(group.members) == 1:
        return f"only {group.members[0].label} has a finished stage of this id"
    members = _members_with(group, score)
    facts = [_facts(member, score) for member in members]
    reasons = []
    for name in dict.fromkeys(name for of_member in facts for name in of_member):
        values = [of_member.get(name) for of_member in facts]
        other = next((k for k, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            first, second = (_in_words(values[k], members[k]) for k in (0, other))
            reasons.append(f"{name} must be the same, got {first} and {second}")
    if not reasons:
        return ""
    return f"{'; '.join(reasons)}; score both in the same way, or do not compare these runs"


def _facts(member: Member, score: str) -> dict[str, str]:
    """Return the facts of a score that must be equal for scores to be comparable."""
    facts = member.scores.facts.get(score, {})
    return {name: value for name, value in facts.items() if must_agree(name)}


def _in_words(value: str | None, member: Member) -> str:
    return f"{'none recorded' if value is None else value} in {member.label}"


def _rows(group: Group, names: Sequence[str]) -> Iterator[Row]:
    sets = {name: {_sets(member, name) for member in group.members} for name in names}
    # The expected minimum decreases with the number of sets, so minima require equal numbers.
    minima = [name for name in names if len(sets[name]) == 1]
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
    """Return the number of scored sets as text.

    For the record ``3 of 10: the first 90 of 300 samples``, this is 3.
    """
    return member.scores.facts.get(score, {}).get("sets", "").partition(" ")[0]


def _costs(member: Member) -> Sequence[SamplingCost]:
    """Return the cost of a sample of each row; empty if the costs were not recorded."""
    costs = member.stage.read(SamplingCosts).rows if member.stage.has(SamplingCosts) else ()
    return costs if len(costs) == len(member.scores.rows) else ()
