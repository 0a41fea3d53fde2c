"""Compute fingerprints of stages, which determine whether a finished stage can be kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping

from genkit.designs import components, references
from genkit.errors import UsageError
from genkit.interfaces import Stage
from genkit.plugin.registry import Registry
from genkit.recipe.encode import table
from genkit.settings import near_match, quote
from genkit.versions import versions_of


def fingerprint(
    stage_id: str, stage: Stage, seed: int, registry: Registry, upstream: Mapping[str, str]
) -> str:
    """Return the SHA-256 of everything on which the result of a stage depends, in hex.

    Args:
        stage_id: id of the stage, from which its random numbers are derived.
        stage: stage with its settings.
        seed: seed of the run.
        registry: registry with the names and versions of the plugins of its components.
        upstream: map from the id of each earlier stage to its fingerprint.
    """
    content = {
        "id": stage_id,
        "stage": table(registry, stage, result_only=True),
        "seed": seed,
        **versions_of(components(stage, result_only=True), registry),
        "upstream": {n: upstream[n] for n in sorted(set(references(stage, result_only=True)))},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def reachable(stage: str, stages: Mapping[str, Stage]) -> frozenset[str]:
    """Return the ids of the stages to which a stage refers, directly or indirectly.

    The fingerprint of the stage depends on them. References in settings that affect no result are
    left out.
    """
    ids: set[str] = set()
    queue = [stage]
    while queue:
        new = set(references(stages[queue.pop()], result_only=True)) - ids
        ids |= new
        queue += new
    return frozenset(ids)


def dependents(requested: Collection[str], stages: Mapping[str, Stage]) -> list[str]:
    """Return the ids of the requested stages and of all stages that depend on them, in order.

    Raises:
        UsageError: a requested id is not the id of a stage.
    """
    for stage in requested:
        if stage not in stages:
            hint = near_match(stage, stages) or f"write one of {', '.join(stages)}"
            raise UsageError(f"redo must be the id of a stage, got {quote(stage)}; {hint}")
    return [i for i in stages if not ({i} | reachable(i, stages)).isdisjoint(requested)]
