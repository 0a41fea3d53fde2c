from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from genkit.errors import Code, PluginError
from genkit.independent import Random
from genkit.interfaces import Coupler, Metric, Network
from genkit.plugin.registry import Owner, Registration, Registry, kinds_of
from genkit.settings import setting
from genkit.types import Measurement
from raising import raises_code


class Abstract(Coupler):
    """Implements nothing."""


class Undecorated(Random):
    """Its setting would be lost."""

    extra: int = setting(1, doc="lost")


@dataclass(frozen=True, kw_only=True)
class Unresolved(Random):
    """Has an annotation that no module defines."""

    extra: Missing | None = setting(None, doc="?")  # noqa: F821


class Scoreless(Metric):
    """Declares no scores, so that no check could tell whether another metric has the same."""

    def measure(self, subject, context):
        return Measurement({"score": 1.0})


class NotACoupler:
    """Something else."""


def registry_with(target: str, name: str = "toy", kind: str = "coupler") -> Registry:
    registration = Registration(Owner("toys", "toy-box", "1.0"))
    registration.add(kind, name, target)
    registry = Registry()
    registry.accept(registration)
    return registry


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("genkit_no_such_module:A", (Code.PLUGIN, "ModuleNotFoundError")),
        ("genkit.independent:Missing", (Code.PLUGIN, "AttributeError")),
        (f"{__name__}:NotACoupler", (Code.PLUGIN, "genkit.interfaces:Coupler")),
        (f"{__name__}:Abstract", (Code.PLUGIN, "pair")),
        (f"{__name__}:Undecorated", (Code.PLUGIN, "@dataclass(frozen=True, kw_only=True)")),
        (f"{__name__}:Unresolved", (Code.PLUGIN, "'Missing'")),
    ],
)
def test_a_component_is_checked_when_it_is_loaded(target: str, reason: str) -> None:
    registry = registry_with(target)
    with raises_code(PluginError, *reason) as caught:
        registry.load(registry.find(["coupler"], "toy"))
    assert "plugin toys (toy-box 1.0)" in str(caught.value)


def test_a_metric_declares_its_scores() -> None:
    registry = registry_with(f"{__name__}:Scoreless", kind="metric")
    with raises_code(PluginError, Code.PLUGIN, "scores", "plugin toys (toy-box 1.0)"):
        registry.load(registry.find(["metric"], "toy"))


def test_near_match() -> None:
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, '"toy"'):
        registry_with("a:B").find(["coupler"], "tooy")


def test_known_names_where_nothing_is_near() -> None:
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, "toy"):
        registry_with("a:B").find(["coupler"], "hungarian")


def test_one_name_in_two_kinds_of_a_slot() -> None:
    registration = Registration(Owner("toys", "toy-box", "1.0"))
    registration.add("denoiser", "toy", "a:B")
    registration.add("classifier", "toy", "a:C")
    registry = Registry()
    registry.accept(registration)
    with raises_code(PluginError, Code.PLUGIN, "denoiser", "classifier"):
        registry.find(["denoiser", "classifier"], "toy")


def test_a_slot_for_a_network_takes_three_kinds() -> None:
    assert kinds_of(Network) == ["denoiser", "discriminator", "classifier"]


def test_name_of() -> None:
    assert registry_with("genkit.independent:Random").name_of(Random()) == "toy"
    assert registry_with(f"{__name__}:Random").name_of(Random()) == "toy"  # a re-export
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT):
        registry_with("a:B").name_of(Random())


def test_entries_are_in_the_order_of_kinds() -> None:
    registration = Registration(Owner("toys", "toy-box", "1.0"))
    for kind, name in [("stage", "a"), ("coupler", "z"), ("coupler", "b")]:
        registration.add(kind, name, "a:B")
    registry = Registry()
    registry.accept(registration)
    assert [(e.kind, e.name) for e in registry.entries()] == [
        ("coupler", "b"),
        ("coupler", "z"),
        ("stage", "a"),
    ]
    assert [e.name for e in registry.entries("stage")] == ["a"]


def test_a_suggestion_says_what_to_write_for_a_name_that_is_no_component() -> None:
    registration = Registration(Owner("solvers", "solver-box", "1.0"))
    registration.add("solver", "euler", "package.module:Euler")
    registration.suggest("solver", "ddim", '{ use = "euler" }')
    registry = Registry()
    registry.accept(registration)
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, '{ use = "euler" }'):
        registry.find(["solver"], "ddim")
    with raises_code(PluginError, Code.PLUGIN, "solvr"):
        registration.suggest("solvr", "ddim", '{ use = "euler" }')


@pytest.mark.parametrize("name", ["Ddim", "euler", "plms"])
def test_a_suggestion_has_a_name_of_its_own(name: str) -> None:
    registry = Registry()
    first = Registration(Owner("first", "solver-box", "1.0"))
    first.suggest("solver", "plms", '{ use = "euler" }')
    registry.accept(first)
    registration = Registration(Owner("solvers", "solver-box", "1.0"))
    registration.add("solver", "euler", "package.module:Euler")
    with raises_code(PluginError, Code.PLUGIN, name):
        registration.suggest("solver", name, '{ use = "heun" }')
        registry.accept(registration)


@pytest.mark.parametrize("table", [{"use": "euler"}, " "])
def test_a_suggestion_is_a_text_and_given_once(table: Any) -> None:
    registration = Registration(Owner("solvers", "solver-box", "1.0"))
    with raises_code(PluginError, Code.PLUGIN, "ddim"):
        registration.suggest("solver", "ddim", table)
    registration.suggest("solver", "ddim", '{ use = "euler" }')
    with raises_code(PluginError, Code.PLUGIN, "ddim"):
        registration.suggest("solver", "ddim", '{ use = "heun" }')


def test_a_component_of_another_kind_is_named_with_its_kind() -> None:
    registration = Registration(Owner("solvers", "solver-box", "1.0"))
    registration.add("solver", "euler", "package.module:Euler")
    registration.add("coupler", "random", "package.module:Random")
    registry = Registry()
    registry.accept(registration)
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, "solver", "random"):
        registry.find(["coupler"], "euler")
