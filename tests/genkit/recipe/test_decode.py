from __future__ import annotations

from typing import Any

import pytest

from genkit.errors import Code, Key, PluginError, SettingError, UnknownComponentError
from genkit.interfaces import Coupler
from genkit.plugin.registry import Registry
from genkit.recipe.decode import component
from raising import raises_code


def refused(registry: Registry, kind: str, table: Any) -> list[tuple[Key, Code]]:
    """Return the keys and codes of the mistakes in a table."""
    with pytest.raises(SettingError) as caught:
        component(registry, kind, table)
    return [(problem.key, problem.code) for problem in caught.value.problems]


@pytest.mark.parametrize("what", [Coupler, "coupler"])
def test_decodes_a_single_component(registry: Registry, what: type[Coupler] | str) -> None:
    made = component(registry, what, {"use": "wrapped", "by": ["a"], "inner": {"use": "random"}})
    assert isinstance(made, Coupler)
    assert type(made.inner).__name__ == "Random"


def test_all_mistakes_are_in_the_error(registry: Registry) -> None:
    table = {"use": "wrapped", "by": 1, "inner": {"use": "x"}, "z": 1}
    assert refused(registry, "coupler", table) == [
        (("by",), Code.WRONG_TYPE),
        (("inner", "use"), Code.UNKNOWN_COMPONENT),
        (("z",), Code.UNKNOWN_KEY),
    ]


def test_stage_references_are_taken_as_they_are(registry: Registry) -> None:
    made = component(registry, "stage", {"use": "sample", "denoiser": "anything"})
    assert made.denoiser == "anything"


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("stage", {"use": "sample"}),
        ("stage", {"use": "sample", "denoiser": 3}),
        ("stage", {"use": "sample", "denoiser": "a", "others": [3]}),
        ("dataset", {"use": "toys", "fakes": 3}),
    ],
)
def test_references_outside_of_a_recipe_are_paths_of_files(
    registry: Registry, kind: str, table: Any
) -> None:
    with pytest.raises(SettingError) as caught:
        component(registry, kind, table)
    (problem,) = caught.value.problems
    assert problem.code in (Code.MISSING_KEY, Code.WRONG_TYPE)
    assert "samples file" in problem.reason or "denoiser file" in problem.reason


def test_an_unknown_name_is_no_setting(registry: Registry) -> None:
    with pytest.raises(UnknownComponentError):
        component(registry, "coupler", {"use": "nope", "cost": "squared"})


def test_what_is_inherited_must_be_given(registry: Registry) -> None:
    assert refused(registry, "stage", {"use": "train", "images": 1}) == [
        (("data",), Code.MISSING_KEY)
    ]


def test_not_a_table(registry: Registry) -> None:
    assert refused(registry, "coupler", 3) == [((), Code.NOT_A_COMPONENT)]


def test_a_name_is_short_for_a_table_with_defaults(registry: Registry) -> None:
    assert component(registry, "coupler", "greedy") == component(
        registry, "coupler", {"use": "greedy"}
    )
    inner = component(registry, "coupler", {"use": "wrapped", "by": [], "inner": "random"})
    assert type(inner.inner).__name__ == "Random"
    assert refused(registry, "coupler", "greedi") == [((), Code.UNKNOWN_COMPONENT)]


def test_unknown_kind(registry: Registry) -> None:
    with raises_code(PluginError, Code.PLUGIN, '"coupler"'):
        component(registry, "couplr", {"use": "random"})


def test_endless_mistakes_end(registry: Registry) -> None:
    assert len(refused(registry, "coupler", {"use": "wrapped", "by": list(range(5000))})) == 200


def test_an_unknown_setting_alone_is_a_mistake(registry: Registry) -> None:
    assert refused(registry, "coupler", {"use": "greedy", "kost": "squared"}) == [
        (("kost",), Code.UNKNOWN_KEY)
    ]


def test_a_renamed_setting_names_the_new_one(registry: Registry) -> None:
    with raises_code(SettingError, Code.RENAMED_KEY, "cost") as caught:
        component(registry, "coupler", {"use": "greedy", "metric": "squared"})
    (problem,) = caught.value.problems
    assert (problem.code, problem.key) == (Code.RENAMED_KEY, ("metric",))


def test_a_table_without_use_sets_settings_of_the_default(registry: Registry) -> None:
    made = component(registry, "coupler", {"use": "wrapped", "by": [], "inner": {"weight": 3}})
    assert (type(made.inner).__name__, made.inner.weight) == ("Greedy", 3)


def test_a_component_in_the_default_keeps_its_name_and_settings(registry: Registry) -> None:
    extra = {"images": 1, "data": "toys", "use": "train"}
    made = component(registry, "stage", {**extra, "paired": {"inner": {"weight": 3}}})
    inner = made.paired.inner
    assert (made.paired.by, type(inner).__name__, inner.weight) == (("a",), "Greedy", 3)
    assert inner.cost == "squared"
    made = component(registry, "stage", {**extra, "paired": {"inner": {"use": "random"}}})
    assert type(made.paired.inner).__name__ == "Random"
