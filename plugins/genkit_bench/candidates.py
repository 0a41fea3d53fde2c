"""Which couplers are measured, and why one cannot be."""

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
        name: in the table.
        coupler: coupler as a recipe has it; None where there is none.
        bound: object that its ``bind`` returned.
        reason: why there is none.
    """

    name: str
    coupler: AnyCoupler | None
    bound: BoundCoupler | BoundDatasetCoupler | None = None
    reason: str = ""


def every_candidate(registry: Registry, device: torch.device) -> list[Candidate]:
    """Return each registered coupler with its defaults, or with the reason why there is none."""
    found = []
    for entry in (e for kind in kinds_of(AnyCoupler) for e in registry.entries(kind)):
        try:
            found.append(_bound(registry, {"use": entry.name}, device))
        # A stranger's code may raise anything; the others are measured all the same.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            found.append(Candidate(entry.name, None, reason=reason_of(error)))
    return found


def chosen_candidates(
    registry: Registry, tables: Sequence[Mapping[str, Any]], device: torch.device
) -> list[Candidate]:
    """Return the couplers of tables as a recipe writes them, ``{"use": name, ...}``.

    Raises:
        GenkitError: a table has a mistake, or a coupler needs an earlier stage.
    """
    for table in tables:  # first of all, for its message is short
        registry.find(kinds_of(AnyCoupler), str(table.get("use")))
    named = {name_of(table): table for table in tables}
    return [_bound(registry, table, device) for table in named.values()]


def name_of(table: Mapping[str, Any]) -> str:
    """Return a coupler's table in short: ``partitioned(inner=pot-exact)``."""

    def short(value: Any) -> str:
        return name_of(value) if isinstance(value, Mapping) else toml_value(value).strip('"')

    settings = ", ".join(f"{key}={short(value)}" for key, value in table.items() if key != "use")
    use = str(table.get("use", ""))
    return f"{use}({settings})" if settings else use


def _bound(registry: Registry, table: Mapping[str, Any], device: torch.device) -> Candidate:
    coupler = component(registry, AnyCoupler, table)
    if not isinstance(coupler, AnyCoupler):
        raise UsageError(f"{name_of(table)} is no coupler", Code.WRONG_KIND)
    return Candidate(name_of(table), coupler, coupler.bind(NoStages(device)))


def reason_of(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, SettingError):
        return "; ".join(f"{'.'.join(map(str, p.key))}: {p.reason}" for p in error.problems)
    if isinstance(error, GenkitError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
