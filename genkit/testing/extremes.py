"""Contract test of settings at extreme values, which a mistake in a recipe may contain."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from genkit.errors import GenkitError
from genkit.field_types import Optional, Reference
from genkit.fields import Field, fields_of
from genkit.interfaces import Component, Dataset, Network, Schedule, Stages
from genkit.networks import NetworkInputs
from genkit.parts.meta import without_memory
from genkit.testing.laws import require
from genkit.types import DataSpec

MOST_SECONDS = 2.0
"""Maximum CPU time of a check, in seconds."""

EXTREMES: Final[tuple[Any, ...]] = (
    *(0, -1, 1, 2**31, 10**9, 10**12, 2**62, 2**63 - 1, 2**63, -(2**63), 10**300),
    *(0.0, -0.0, 0.5, 1e-320, 1e30, -1e30, 1e308, math.inf, -math.inf, math.nan),
    *(True, False),
    *("", "x", "nan", "\0", ".", "/dev/zero", "/dev/full", "~nobody", "\u202e", "x" * 100_000),
    *([], [0], [-1], [1e30], [math.nan], [10**12], [[]], [""], [{}], [1] * 10_000),
    *({}, {"use": "x"}, {"x": [math.inf]}, {"x": {"y": {"z": 10**12}}}),
)
"""Values at the ends of the ranges of TOML, and of types other than those of most settings."""

_SPECS = DataSpec((3, 32, 32), classes=10), DataSpec((2,), classes=2)


def check_settings(
    component: Component, earlier: Stages | None = None, values: Sequence[Any] = EXTREMES
) -> None:
    """Check every setting of a component at extreme values.

    Each value is refused with a SettingError, or by ``check`` with a problem or a GenkitError, or
    it is accepted. With the accepted values, a network can be built without memory, a schedule
    returns its noise levels, and a data set its specification, or they raise a GenkitError. No
    value takes longer than 2 s of CPU time.

    Args:
        component: component with valid settings.
        earlier: stages to which the component refers, by id. They are not run.
        values: values of each setting, of any type.

    Raises:
        LawBroken: another error is raised, or a value takes longer; the error contains the setting
            and the value.
    """
    stages, specs = earlier or {}, _specs(component)
    for field in fields_of(type(component)):
        for value in values:
            if _is_reference(field, value):
                continue
            begin, error = time.process_time(), ""
            try:
                _use(replace(component, **{field.name: value}), stages, specs)
            except GenkitError:
                pass
            except Exception as raised:  # noqa: BLE001, any other error breaks the law
                error = f", {type(raised).__name__}: {raised}"
            seconds = time.process_time() - begin
            shown = f"{field.name} = {value!r:.60}"
            law = "refuses-extremes: an invalid value of a setting is refused with a GenkitError"
            require(not error, component, law, shown + error)
            law = f"quick: a setting is accepted or refused within {MOST_SECONDS:g} s"
            require(seconds <= MOST_SECONDS, component, law, f"{shown}, {seconds:.1f} s")


def _is_reference(field: Field, value: object) -> bool:
    """Return whether a value is the id of a stage, which is checked before a component is."""
    kind = field.type.inner if isinstance(field.type, Optional) else field.type
    return isinstance(kind, Reference) and isinstance(value, str)


def _specs(component: Component) -> Sequence[DataSpec]:
    """Return the data for which a network can be built."""
    specs: list[DataSpec] = []
    if not isinstance(component, Network):
        return specs
    for spec in _SPECS:
        with suppress(GenkitError):
            _build(component, spec)
            specs.append(spec)
    return specs


def _use(component: Component, earlier: Stages, specs: Sequence[DataSpec]) -> None:
    """Check a component, and compute what a check of a recipe computes of it."""
    if any(component.check(earlier)):
        return
    if isinstance(component, Schedule) and component.bound:
        component.sigmas()
    elif isinstance(component, Dataset):
        component.spec()
    elif isinstance(component, Network):
        for spec in specs:
            _build(component, spec)


def _build(network: Network, spec: DataSpec) -> None:
    with without_memory():
        network.bind(NetworkInputs()).build(spec)
