from __future__ import annotations

import io

import pytest
from rich.console import Console

from genkit.parts.sheet import print_sheet
from genkit.plugin.manager import Plugins, PluginStatus
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.report.components import (
    description,
    plugin_cells,
    plugin_json,
    settings_of,
    show_component,
)


def text_of(cells):
    stream = io.StringIO()
    print_sheet(Console(file=stream, width=10_000), cells)
    return stream.getvalue()


@pytest.fixture
def plugins():
    owner = Owner("core", "genkit-diffusion", "1.2")
    registration = Registration(owner)
    registration.add("coupler", "random", "genkit.independent:Random")
    registration.add("stage", "sample", "genkit_stages.sample:Sample")
    registration.add("stage", "train", "genkit_stages.train:Train")
    registry = Registry()
    registry.accept(registration)
    loaded = PluginStatus(owner, tuple(registration.entries.values()))
    failed = PluginStatus(Owner("bad", "stranger", "0.1"), reason="KeyError: [red]x[/]")
    silent = PluginStatus(Owner("mute", "stranger", "0.1"))
    return Plugins(registry, (loaded,), (failed, silent))


def test_the_table_shows_components_by_kind_and_reasons_verbatim(plugins):
    lines = [line.strip() for line in text_of(plugin_cells(plugins)).splitlines()]
    assert lines[2].split() == ["core", "genkit-diffusion", "1.2", "loaded", "coupler:", "random"]
    assert lines[3] == "stage: sample, train"
    assert lines[4].split(maxsplit=4)[3:] == ["failed", "KeyError: [red]x[/]"]
    assert lines[5].split() == ["mute", "stranger", "0.1", "failed"]


def test_a_kind_filters_components_and_no_plugins(plugins):
    text = text_of(plugin_cells(plugins, "coupler"))
    assert "random" in text
    assert "train" not in text
    content = plugin_json(plugins, "coupler")
    assert [len(plugin["components"]) for plugin in content["plugins"]] == [1, 0, 0]


def test_json_holds_all_of_it(plugins):
    content = plugin_json(plugins)
    assert content["plugins"][0] == {
        "plugin": "core",
        "distribution": "genkit-diffusion",
        "version": "1.2",
        "status": "loaded",
        "reason": "",
        "components": [
            {"kind": "coupler", "name": "random", "target": "genkit.independent:Random"},
            {"kind": "stage", "name": "sample", "target": "genkit_stages.sample:Sample"},
            {"kind": "stage", "name": "train", "target": "genkit_stages.train:Train"},
        ],
        "commands": [],
    }
    assert [p["status"] for p in content["plugins"]] == ["loaded", "failed", "failed"]
    assert content["plugins"][1]["reason"] == "KeyError: [red]x[/]"


def shown(plugins, kind, name):
    stream = io.StringIO()
    entry = plugins.registry.find([kind], name)
    show_component(Console(file=stream, width=10_000), description(plugins.registry, entry))
    return stream.getvalue()


def test_a_component_shows_whose_it_is_and_where_it_comes_from(plugins):
    text = shown(plugins, "coupler", "random")
    assert text.startswith("coupler random\nAssign noise sample k to image k")
    assert "owner: plugin core (genkit-diffusion 1.2)\n" in text
    assert "source: EDM, arXiv 2206.00364, section 5\n" in text
    assert text.endswith("no settings\n")


def test_settings_are_shown_with_type_default_range_and_meaning(plugins):
    def settings(name):
        cls = plugins.registry.load(plugins.registry.find(["stage"], name))
        return {row[0]: row[1:] for row in settings_of(cls)}

    train = settings("train")
    assert train["images"][:3] == ("an integer", "required", "at least 1 and at most 1e+12")
    assert train["network"][0] == "denoiser or discriminator or classifier"
    assert train["coupler"][1] == '{ use = "random" }'
    assert train["data"][1] == "the recipe's data"
    assert train["augmentation"][:2] == ("augmentation or nothing", "nothing")
    sample = settings("sample")
    assert sample["denoiser"][0] == "the id of a stage with output denoiser"
    assert sample["guidance"][:2] == ("a list, each item a component of kind guidance", "[]")
    text = shown(plugins, "stage", "train")
    assert all(meaning and meaning in text for *_, meaning in train.values())
