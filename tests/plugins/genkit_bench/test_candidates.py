from __future__ import annotations

import pytest
import torch

from genkit.errors import Code, PluginError, SettingError, UsageError
from genkit_bench.candidates import all_candidates, chosen_candidates, name_of, reason_of
from raising import raises_code

CPU = torch.device("cpu")


def test_every_coupler_is_listed_with_the_reason_why_one_cannot_be_made(registry):
    found = {one.name: one for one in all_candidates(registry, CPU)}
    assert list(found) == ["bound", "gone", "needy", "picky", "reversed", "nearest"]
    usable = [name for name, one in found.items() if one.coupler is not None]
    assert usable == ["picky", "reversed", "nearest"]
    assert found["reversed"].reason == ""
    assert found["needy"].reason == "denoiser: missing: the path of a denoiser file"
    assert 'stage "denoiser"' in found["bound"].reason
    assert "cannot be loaded: AttributeError" in found["gone"].reason


def test_chosen_couplers_are_made_from_their_tables(registry):
    tables = [{"use": "reversed"}, {"use": "reversed", "cost": "euclidean"}, {"use": "reversed"}]
    found = chosen_candidates(registry, tables, CPU)
    assert [one.name for one in found] == ["reversed", "reversed(cost=euclidean)"]
    assert found[1].coupler.cost == "euclidean"


@pytest.mark.parametrize(
    ("table", "error", "told"),
    [
        (
            {"use": "reverse"},
            PluginError,
            (Code.UNKNOWN_COMPONENT, '"reverse"', '"reversed"'),
        ),
        ({"use": "reversed", "cost": 1}, SettingError, (Code.WRONG_TYPE, "reversed.cost")),
        ({"use": "needy"}, SettingError, (Code.MISSING_KEY, "needy.denoiser")),
        ({"use": "bound"}, UsageError, (Code.UNKNOWN_STAGE,)),
        ({}, PluginError, (Code.UNKNOWN_COMPONENT,)),
    ],
)
def test_a_chosen_coupler_that_cannot_be_made_is_an_error(registry, table, error, told):
    with raises_code(error, *told):
        chosen_candidates(registry, [table], CPU)


def test_names_are_short():
    inner = {"use": "hungarian", "cost": "squared"}
    assert name_of({"use": "random"}) == "random"
    table = {"use": "partitioned", "by": ["label"], "inner": inner}
    assert name_of(table) == 'partitioned(by=["label"], inner=hungarian(cost=squared))'


def test_a_reason_is_one_line():
    assert reason_of(ValueError("two\n lines")) == "ValueError: two lines"
    assert reason_of(KeyError()) == "KeyError"
