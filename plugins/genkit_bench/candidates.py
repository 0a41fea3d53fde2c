"""Select the couplers to measure, and give a reason for each coupler that cannot be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from genkit.errors import Code, GenkitError, SettingError, UsageError
from genkit.interfaces import AnyCoupler, BoundCoupler, BoundDatasetCoupler
from genkit.parts.no_stages import NoStages
from genkit.plugin.registry import Registry, kinds_of
from genkit.recipe.decode import component
from genkit.settings import toml_value


@dataclass(frozen=True)
class Candidate:
    """A coupler to measure.

    Attributes:
        name: name in the table of results.
        coupler: coupler with its settings; None if it cannot be created.
        bound: object that the coupler's ``bind`` returned; None if it cannot be created.
        reason: reason why the coupler cannot be created; empty if it can.
    """

    name: str
    coupler: AnyCoupler | None
    bound: BoundCoupler | BoundDatasetCoupler | None = None
    reason: str = ""


def all_candidates(registry: Registry, device: torch.device) -> list[Candidate]:
    """Return each registered coupler with its default settings, or a reason why it needs others."""
    candidates = []
    for entry in (e for kind in kinds_of(AnyCoupler) for e in registry.entries(kind)):
        try:
            candidates.append(_bind(registry, {"use": entry.name}, device))
        # Third-party code may raise any error, which must not stop the measurement of the others.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            candidates.append(Candidate(entry.name, None, reason=reason_of(error)))
    return candidates


def chosen_candidates(
    registry: Registry, tables: Sequence[Mapping[str, Any]], device: torch.device
) -> list[Candidate]:
    """Return the couplers for tables as in a recipe, ``{"use": name, ...}``.

    Raises:
        GenkitError: a table is invalid, or a coupler requires an earlier stage.
    """
    for table in tables:  # names are checked before settings, since this error is shorter
        registry.find(kinds_of(AnyCoupler), str(table.get("use")))
    by_name = {name_of(table): table for table in tables}
    return [_bind(registry, table, device) for table in by_name.values()]


def name_of(table: Mapping[str, Any]) -> str:
    """Return a short name of the coupler of a table, such as ``partitioned(inner=pot-exact)``."""

    def short(value: Any) -> str:
        return name_of(value) if isinstance(value, Mapping) else toml_value(value).strip('"')

    settings = ", ".join(f"{key}={short(value)}" for key, value in table.items() if key != "use")
    use = str(table.get("use", ""))
    return f"{use}({settings})" if settings else use


def _bind(registry: Registry, table: Mapping[str, Any], device: torch.device) -> Candidate:
    coupler = component(registry, AnyCoupler, table)
    if not isinstance(coupler, AnyCoupler):
        raise UsageError(f"--coupler must be a coupler, got {name_of(table)}", Code.WRONG_KIND)
    return Candidate(name_of(table), coupler, coupler.bind(NoStages(device)))


def reason_of(error: BaseException) -> str:
    """Return the message of an error in one line."""
    if isinstance(error, SettingError):
        return "; ".join(f"{'.'.join(map(str, p.key))}: {p.reason}" for p in error.problems)
    if isinstance(error, GenkitError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
