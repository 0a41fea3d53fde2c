"""Errors in the code of a third-party package name component, plugin and line, at any place."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys

import pytest
import torch

import genkit
from frail_plugin import HELPER, HOOKS, PARTS, RECIPE
from genkit.blame import plugin_error_of, plugin_errors
from genkit.errors import Code, DataError, GenkitError, PluginError
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.train.distributed import _pack
from genkit.train.pairing import PairStream
from genkit.types import Batch
from genkit_files.importing import read_in_process
from inside import reading_inside
from raising import raises_code

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

OWNER = "plugin frail (genkit-frail 1.5)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the package; all tests share it, so that the plugin is probed once."""
    site = tmp_path_factory.mktemp("site")
    package = site / "toy_frail"
    package.mkdir()
    modules = {
        "__init__": HOOKS,
        "helper": HELPER,
        "parts": PARTS,
        "broken": "import os\n\n1 / 0\n",
    }
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    info = site / "genkit_frail-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: genkit-frail\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[genkit.plugins]\nfrail = toy_frail\n")
    return site


@pytest.fixture
def frail(site, tmp_path, monkeypatch):
    """Install the package and return what makes it fail at a place."""
    monkeypatch.setattr("genkit.plugin.probe.cache_folder", lambda: site / "cache")
    monkeypatch.syspath_prepend(site)
    # Of the process that imports.
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frail.toml").write_text(RECIPE)
    yield lambda place: monkeypatch.setenv("FRAIL", place)
    for name in [name for name in sys.modules if name.startswith("toy_frail")]:
        del sys.modules[name]


RUNS = {
    "__post_init__": 'coupler "frail"',
    "check": 'coupler "frail"',
    "pair": 'coupler "frail"',
    "spec": 'dataset "frail"',
    "version": 'dataset "frail"',
    "load": 'dataset "frail"',
    "build": 'denoiser "frail"',
    "measure": 'metric "frail"',
    "sigmas": 'schedule "frail"',
    "augment": 'augmentation "frail"',
    "check_guided": 'guidance "frail"',
    "bind": 'guidance "frail"',
    "output": 'stage "frail"',
    "run": 'stage "frail"',
}
"""The component that is named, by the place at which it fails."""


def require_named(error, component, place):
    assert f"{component} of {OWNER} raised ZeroDivisionError: {place} (" in error
    assert "helper.py, line 8)" in error


@pytest.mark.parametrize(("place", "component"), RUNS.items())
def test_a_run_names_the_component(genkit_, frail, place, component):
    frail(place)
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    require_named(err, component, place)
    assert "Traceback" not in err
    assert "Traceback" in genkit_("run", "frail.toml", "--device", "cpu", "--traceback")[2]


def test_a_paired_loader_names_the_coupler(frail):
    frail("pair")
    with pytest.raises(PluginError) as caught:
        list(genkit.PairedLoader([torch.zeros(4, 2)], "frail"))
    require_named(str(caught.value), RUNS["pair"], "pair")


@pytest.mark.parametrize("place", ["__post_init__", "check", "check_guided", "spec"])
def test_validation_names_the_component(genkit_, frail, place):
    frail(place)
    code, _, err = genkit_("validate", "frail.toml")
    assert code == 2
    require_named(err, RUNS[place], place)
    code, out, err = genkit_("validate", "frail.toml", "--json")
    assert (code, err) == (2, "")
    (mistake,) = json.loads(out)
    assert mistake["code"] == "plugin"
    require_named(mistake["message"], RUNS[place], place)


@pytest.mark.parametrize("place", ["check", "pair", "measure"])
def test_code_that_ends_the_process_does_not_pass_for_success(genkit_, frail, place):
    frail(f"exit {place}")
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    assert f"{RUNS[place]} of {OWNER} raised SystemExit: 0 (" in err


REFUSALS = {
    "check_guided": f'frail.toml:15: samples: guidance "frail" of {OWNER}',
    "pair": f'stage denoiser: pool 0: coupler "frail" of {OWNER}',
    "load": f'stage denoiser: dataset "frail" of {OWNER}',
    "build": "frail.toml:10: denoiser.network",
    "augment": f'stage denoiser: pool 0: augmentation "frail" of {OWNER}',
    "bind": f'stage samples: guidance "frail" of {OWNER}',
    "correction": f"stage samples: {OWNER}",
    "measure": f'stage scores: metric "frail" of {OWNER}',
    "run": f'stage own: stage "frail" of {OWNER}',
}
"""What comes before a message of the plugin's own, by the place at which it raises one."""


@pytest.mark.parametrize("place", REFUSALS)
def test_an_error_of_genkits_tree_that_a_plugin_raises_names_it(genkit_, frail, place):
    frail(f"refusal {place}")
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    assert f"{REFUSALS[place]}: {place} is too small; write a larger one" in err
    with pytest.raises(GenkitError) as caught:
        genkit.run_recipe("frail.toml", device="cpu")
    assert caught.value.mistakes[0].problem.code == Code.OUT_OF_RANGE


NOTHING = {
    ("toy_frail.parts:Pairing", "pair"): 'coupler "frail"',
    ("toy_frail.parts:Pairing", "bind"): 'coupler "frail"',
    ("toy_frail.parts:Points", "spec"): 'dataset "frail"',
    ("toy_frail.parts:Points", "load"): 'dataset "frail"',
    ("toy_frail.parts:Net", "build_network"): 'denoiser "frail"',
    ("toy_frail.parts:Net", "build"): 'denoiser "frail"',
    ("toy_frail.parts:Net", "bind"): 'denoiser "frail"',
    ("toy_frail.parts:Score", "bind"): 'metric "frail"',
    ("toy_frail.parts:Score", "measure"): 'metric "frail"',
    ("toy_frail.parts:Levels", "bind"): 'schedule "frail"',
    ("toy_frail.parts:Levels", "sigmas"): 'schedule "frail"',
    ("toy_frail.parts:Flip", "augment"): 'augmentation "frail"',
    ("toy_frail.parts:Push", "bind"): 'guidance "frail"',
    ("toy_frail.parts:Parities", "bind"): 'extractor "frail"',
    ("genkit_optim.adam:Adam", "build"): 'optimizer "adam"',
    ("genkit_optim.ema:Ema", "build"): 'average "ema"',
    ("genkit_stages.preview:Preview", "bind"): 'callback "preview"',
    ("genkit_stages.preview:Preview", "call"): 'callback "preview"',
    ("genkit_edm.denoising:Denoising", "loss"): 'objective "denoising"',
    ("genkit_edm.denoising:Denoising", "bind"): 'objective "denoising"',
    ("genkit_edm.solvers.heun:Heun", "between"): 'solver "heun"',
    ("genkit.latents:Derived", "draw"): 'latents "derived"',
}
"""The component that is named where a method returns None."""


@pytest.mark.parametrize(("target", "method"), NOTHING)
def test_a_method_that_returns_nothing_names_the_component(
    genkit_, frail, monkeypatch, target, method
):
    frail("")
    module, _, name = target.partition(":")
    cls = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(cls, method, lambda *_, **__: None)
    metrics = '[{ use = "frail" }, { use = "frechet", extractor = { use = "frail" } }]'
    code, _, err = genkit_(
        *("run", "frail.toml", "--device", "cpu", "--set", f"scores.metrics={metrics}"),
        *("--set", 'denoiser.callbacks=[{ use = "preview", every = 16 }]'),
    )
    assert code == 2
    assert f"{NOTHING[target, method]} of plugin " in err
    assert "None" in err
    assert "Traceback" not in err


def test_a_dry_run_names_the_component(genkit_, frail):
    frail("version")
    code, _, err = genkit_("run", "frail.toml", "--dry-run")
    assert code == 2
    require_named(err, 'dataset "frail"', "version")


@pytest.mark.parametrize(("place", "component"), RUNS.items())
def test_python_raises_the_same_error(frail, place, component):
    frail(place)
    with pytest.raises(PluginError) as caught:
        genkit.run_recipe("frail.toml", device="cpu")
    require_named(str(caught.value), component, place)
    cause = caught.value
    while isinstance(cause, PluginError):
        cause = cause.__cause__
    assert isinstance(cause, ZeroDivisionError)


def test_a_component_alone_in_python(frail):
    frail("__post_init__")
    with pytest.raises(PluginError) as caught:
        genkit.component("coupler", "frail")
    require_named(str(caught.value), 'coupler "frail"', "__post_init__")


@pytest.fixture
def trained(frail):
    return genkit.run_recipe("frail.toml", device="cpu").folder


@pytest.mark.parametrize(
    ("place", "component", "arguments"),
    [
        ("build", 'denoiser "frail"', ["sample", "denoiser.safetensors", "--out", "out"]),
        (
            "sigmas",
            'schedule "frail"',
            ["sample", "denoiser.safetensors", "--out", "out", "--schedule", "frail"],
        ),
        ("build", 'denoiser "frail"', ["export", "runs/frail", "out.safetensors"]),
    ],
)
def test_commands_on_files_name_the_component(genkit_, frail, trained, place, component, arguments):
    shutil.copy(trained / "01-denoiser" / "denoiser.safetensors", "denoiser.safetensors")
    frail(place)
    code, _, err = genkit_(*arguments)
    assert code == 2
    require_named(err, component, place)


def test_what_a_component_binds_is_none_and_names_the_plugin(genkit_, frail):
    frail("correction")
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    assert f"Error: stage samples: {OWNER} raised ZeroDivisionError: correction (" in err


def test_a_module_is_no_component_and_names_the_plugin(genkit_, frail, trained):
    frail("forward")
    path = trained / "01-denoiser" / "denoiser.safetensors"
    code, _, err = genkit_("sample", path, "--out", "out")
    assert code == 2
    assert f"Error: {OWNER} raised ZeroDivisionError: forward (" in err


def test_the_module_of_an_extractor_names_the_extractor(genkit_, frail):
    frail("features")
    metrics = 'scores.metrics=[{ use = "frechet", extractor = { use = "frail" } }]'
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu", "--set", metrics)
    assert code == 2
    require_named(err, 'extractor "frail"', "features")


def test_a_file_in_python(frail, trained):
    path = trained / "01-denoiser" / "denoiser.safetensors"
    denoiser = genkit.load_denoiser(path, "cpu")
    frail("build")
    with pytest.raises(PluginError):
        genkit.load_denoiser(path, "cpu")
    frail("forward")
    with pytest.raises(PluginError) as caught:
        denoiser.sample(2, start="noise")
    assert OWNER in str(caught.value)


def test_an_import_names_the_component_in_the_other_process(genkit_, frail, tmp_path):
    (tmp_path / "file").touch()
    frail("read")
    arguments = ("import", "--as", "frail", "file", "out.safetensors")
    code, _, err = genkit_(*arguments)
    assert code == 2
    require_named(err, 'importer "frail"', "read")
    assert "Traceback" not in err
    with reading_inside():
        assert 'fail("read")' in genkit_(*arguments, "--traceback")[2]
    frail("exit read")
    code, _, err = genkit_(*arguments)
    assert (code, "raised SystemExit: 0" in err) == (2, True)
    frail("refusal read")
    with reading_inside():
        code, _, err = genkit_(*arguments)
        assert (code, f'Error: importer "frail" of {OWNER}: read is too small' in err) == (2, True)
        with raises_code(DataError, Code.OUT_OF_RANGE):
            read_in_process({"use": "frail"}, tmp_path / "file", tmp_path)
        frail("")
        assert genkit_(*arguments)[2] == ""


def test_other_processes_are_told_the_component_of_a_pool(frail):
    told = []

    class Telling:
        """Takes what a process sends to the others."""

        def solves(self, index):
            return True

        def share(self, index, found):
            told.append(found)
            raise found

    frail("pair")
    images, seed = Batch(torch.zeros(8, 2)), lambda *purpose: generator(0, *purpose)
    coupler = genkit.component("coupler", "frail")
    stream = PairStream(images, coupler, coupler, None, 4, 8, seed)
    with pytest.raises(PluginError):
        list(stream.batches(4, exchange=Telling()))
    require_named(str(told[0]), 'coupler "frail"', "pair")
    message, _ = _pack(told[0])
    require_named(json.loads(bytes(message.tolist()))["error"], 'coupler "frail"', "pair")


def test_pairs_that_break_a_declaration_name_coupler_pool_and_index(genkit_, frail):
    frail("one noise for all")
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    assert f'stage denoiser: pool 0: coupler "frail" of {OWNER} declares a bijection' in err
    assert "got noise 0 16 times" in err


BROKEN_RULES = {
    "saves nothing": ("own", 'stage "frail"', "must write the artifact that it declares, Scores"),
    "saves": ("own", 'stage "frail"', "none, got Scores"),
    "drawn": ("own", 'stage "frail"', "from drawn_by, got None"),
    "reads": ("own", 'stage "frail"', 'must refer to the stage "samples"'),
    "binds nothing": (
        "samples",
        'guidance "frail"',
        "must return BoundGuidance from bind",
    ),
    "flat": ("samples", 'guidance "frail"', "must return a correction of floating-point numbers"),
    "infinite": ("samples", 'guidance "frail"', "must be finite"),
}


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_broken_rule_names_component_and_plugin(genkit_, frail, rule):
    frail(rule)
    stage, component, reason = BROKEN_RULES[rule]
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    assert f"Error: stage {stage}: " in err
    assert f"{component} of {OWNER}" in err
    assert reason in err


def test_a_command_names_the_plugin(genkit_, frail):
    frail("command")
    code, _, err = genkit_("frailty")
    assert code == 2
    assert f"Error: {OWNER} raised ZeroDivisionError: command (" in err
    assert genkit_("frailty", "--code", 7)[0] == 7


def test_a_component_that_cannot_be_imported(genkit_, trained, site):
    denoiser = shutil.copy(trained / "01-denoiser" / "denoiser.safetensors", "d.safetensors")
    broken = site / "toy_frail" / "broken.py"
    sample = ["sample", denoiser, "--out", "out", "--solver", "frail"]
    for arguments in (["show", "frail"], sample):
        code, _, err = genkit_(*arguments)
        assert code == 2
        assert f'solver "frail" (toy_frail.broken:Nothing, {OWNER}) cannot be loaded' in err
        assert f"ZeroDivisionError: division by zero ({broken}, line 3)" in err


@pytest.mark.parametrize("place", ["load", "measure"])
def test_a_full_disk_is_not_the_plugins(genkit_, frail, place):
    frail(f"disk {place}")
    code, _, err = genkit_("run", "frail.toml", "--device", "cpu")
    assert code == 2
    assert "No space left on device" in err
    assert OWNER not in err


def test_a_mistake_of_the_user_is_not_the_plugins(genkit_, frail):
    code, _, err = genkit_("run", "frail.toml", "--set", "denoiser.coupler.by=1")
    assert (code, OWNER in err) == (2, False)


@pytest.mark.usefixtures("frail")
def test_errors_of_others_pass_unchanged():
    for error in (KeyError("ours"), DataError("the user's")):
        with pytest.raises(type(error)) as caught, plugin_errors(load_plugins().registry):
            raise error
        assert caught.value is error
        assert plugin_error_of(error) is None
