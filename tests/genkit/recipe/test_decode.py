from __future__ import annotations

import pytest

from genkit.errors import Code, PluginError, SettingError
from genkit.interfaces import Coupler
from genkit.plugin.registry import Registry
from genkit.recipe.decode import component


@pytest.mark.parametrize("what", [Coupler, "coupler"])
def test_decodes_a_single_component(registry: Registry, what: type[Coupler] | str) -> None:
    made = component(registry, what, {"use": "wrapped", "by": ["a"], "inner": {"use": "random"}})
    assert isinstance(made, Coupler)
    assert type(made.inner).__name__ == "Random"


def test_all_mistakes_are_in_the_error(registry: Registry) -> None:
    with pytest.raises(SettingError) as caught:
        component(registry, "coupler", {"use": "wrapped", "by": 1, "inner": {"use": "x"}, "z": 1})
    assert {p.key for p in caught.value.problems} == {("by",), ("inner", "use"), ("z",)}


def test_stage_references_are_taken_as_they_are(registry: Registry) -> None:
    made = component(registry, "stage", {"use": "sample", "denoiser": "anything"})
    assert made.denoiser == "anything"


def test_what_is_inherited_must_be_given(registry: Registry) -> None:
    with pytest.raises(SettingError, match=r"train.data: missing"):
        component(registry, "stage", {"use": "train", "images": 1})


def test_not_a_table(registry: Registry) -> None:
    with pytest.raises(SettingError, match="is not a coupler"):
        component(registry, "coupler", "random")  # type: ignore[arg-type]


def test_unknown_kind(registry: Registry) -> None:
    with pytest.raises(PluginError, match='did you mean "coupler"'):
        component(registry, "couplr", {"use": "random"})


def test_endless_mistakes_end(registry: Registry) -> None:
    with pytest.raises(SettingError) as caught:
        component(registry, "coupler", {"use": "wrapped", "by": list(range(5000))})
    assert len(caught.value.problems) == 200


def test_an_unknown_setting_alone_is_a_mistake(registry: Registry) -> None:
    with pytest.raises(SettingError, match='did you mean "cost"'):
        component(registry, "coupler", {"use": "greedy", "kost": "squared"})


def test_a_renamed_setting_names_the_new_one(registry: Registry) -> None:
    with pytest.raises(SettingError) as caught:
        component(registry, "coupler", {"use": "greedy", "metric": "squared"})
    (problem,) = caught.value.problems
    assert (problem.code, problem.key) == (Code.RENAMED_KEY, ("metric",))
    assert problem.hint == "write cost"


def test_a_table_without_use_sets_settings_of_the_default(registry: Registry) -> None:
    made = component(registry, "coupler", {"use": "wrapped", "by": [], "inner": {"weight": 3}})
    assert (type(made.inner).__name__, made.inner.weight) == ("Greedy", 3)
