"""``genkit show``: components and recipes, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from genkit.artifacts.layout import RESOLVED
from genkit.errors import Code
from recipes import QUICK


def test_a_recipe_is_shown_with_all_values(genkit_):
    code, out, _ = genkit_("show", "smoke")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["denoiser.batch_size", "=", "128"] not in lines  # differs
    assert ["*", "denoiser.batch_size", "=", "128", "default", "256"] in lines
    assert ["denoiser.optimizer.learning_rate", "=", "0.001"] in lines
    assert ["*", "denoiser.images", "=", "60000", "required"] in lines
    assert ["denoiser.micro_batch", "=", "nothing"] in lines
    assert ["samples:", "sample"] in lines


def test_a_file_is_shown(genkit_, tmp_path):
    (tmp_path / "edm.toml").write_text(QUICK)
    code, out, _ = genkit_("show", tmp_path / "edm.toml")
    assert code == 0
    assert '"quick"' in out
    (tmp_path / "edm.toml").write_text(QUICK.replace("images", "imagse"))
    code, out, err = genkit_("show", tmp_path / "edm.toml")
    assert (code, out) == (2, "")
    assert "imagse" in err


def test_the_recipe_of_a_run_is_shown(genkit_, tmp_path):
    code, _, err = genkit_("show", tmp_path)
    assert (code, str(tmp_path) in err) == (2, True)
    (tmp_path / RESOLVED).write_text(QUICK)
    code, out, _ = genkit_("show", tmp_path)
    assert (code, '"quick"' in out) == (0, True)


def test_a_name_that_no_file_can_have_is_unknown(genkit_):
    for name in ("a" * 256, "a\0b"):
        code, out, err = genkit_("show", name)
        assert (code, out, "no component or recipe" in err) == (2, "", True)


def test_a_recipe_that_has_the_name_of_a_component_is_shown_on_request(genkit_):
    _, out, _ = genkit_("show", "edm")
    assert "schedule edm\n" in out
    assert out.endswith("genkit show edm --kind recipe\n")
    assert "--kind recipe" not in genkit_("show", "edm", "--kind", "schedule")[1]
    code, out, _ = genkit_("show", "edm", "--kind", "recipe")
    assert code == 0
    assert "denoiser: train" in out


def test_json_has_the_values_of_a_recipe(genkit_):
    code, out, _ = genkit_("show", "smoke", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["name"] == "smoke"
    assert [stage["id"] for stage in content["stages"]] == ["denoiser", "samples", "scores"]
    by_key = {value["key"]: value for value in content["settings"]}
    assert by_key["seed"] == {
        "stage": None,
        "key": "seed",
        "value": 0,
        "default": 0,
        "required": False,
        "differs": False,
    }
    assert by_key["denoiser.coupler.cost"]["value"] == "squared"
    assert by_key["denoiser.coupler.cost"]["differs"]


def test_json_has_the_settings_of_components(genkit_):
    code, out, _ = genkit_("show", "edm", "--json")
    content = json.loads(out)
    assert code == 0
    assert {"preconditioner", "schedule"} <= {component["kind"] for component in content}
    (schedule,) = (component for component in content if component["kind"] == "schedule")
    rho = next(row for row in schedule["settings"] if row["setting"] == "rho")
    assert (rho["default"], rho["type"]) == ("7.0", "a number")


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (("smok",), '"smoke"'),
        (("hungarin",), '"hungarian"'),
        (("smok", "--kind", "recipe"), '"smoke"'),
        (("edm", "--kind", "recip"), '"recipe"'),
    ],
)
def test_the_nearest_name_is_suggested(genkit_, arguments, suggested):
    code, out, err = genkit_("show", *arguments)
    assert (code, out) == (2, "")
    assert suggested in err
    assert Code.USAGE.value not in err
    code, out, _ = genkit_("show", *arguments, "--json")
    (mistake,) = json.loads(out)["mistakes"]
    assert (code, suggested in mistake["message"] + mistake["suggestion"]) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ("list-plugins", "--kind", "nope"),
        ("runs", "nope"),
        ("verify", "nope"),
        ("compare", "nope", "x"),
    ],
)
def test_mistakes_are_json_for_programs(genkit_, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, out, err = genkit_(*command, "--json")
    (mistake,) = json.loads(out)["mistakes"]
    assert (code, "nope" in mistake["message"], err.startswith("Error: ")) == (2, True, True)
