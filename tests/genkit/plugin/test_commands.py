"""Commands that plugins add to `genkit`, and what they do after a run."""

from __future__ import annotations

import json

import pytest
from typer.main import get_group

from genkit.cli import app
from genkit.plugin.kinds import CORE_COMMANDS
from genkit.plugin.manager import load_plugins

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

BOTH = """
import typer
from genkit.plugin import hookimpl

tools = typer.Typer(help="Tools of a toy.")

@tools.command()
def count(upto: int):
    for number in range(upto):
        typer.echo(number)

@tools.command()
def leave(code: int):
    raise typer.Exit(code)

@tools.command()
def abort(code: int):
    raise SystemExit(code)

@tools.command()
def fail():
    raise ValueError("no toy in this box")

@hookimpl
def genkit_register(registry):
    registry.add("coupler", "toy", "toy_toy_box:Nothing")

@hookimpl
def genkit_commands(app):
    app.add_typer(tools, name="toys")
    app.command("greet")(lambda: typer.echo("hello"))
"""

TINY = ("--set", "denoiser.images=256", "--set", "samples.count=32", "--device", "cpu")

GREET = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_commands(app):
    app.command("modest")(lambda: None)
    app.command("{name}")(lambda: None)
"""


def test_the_core_reserves_the_names_of_its_commands():
    own = super(type(get_group(app)), get_group(app)).list_commands(None)
    assert set(own) == CORE_COMMANDS


def test_a_plugin_adds_commands_and_groups(install, genkit_):
    install("toy-box", BOTH)
    assert genkit_("greet") == (0, "hello\n", "")
    assert genkit_("toys", "count", 2) == (0, "0\n1\n", "")
    assert "Tools of a toy." in genkit_("--help")[1]
    assert "count" in genkit_("toys", "-h")[1]


def test_commands_are_listed_with_their_plugin(install, genkit_):
    install("toy-box", BOTH)
    listed = json.loads(genkit_("list-plugins", "--json")[1])["plugins"]
    (plugin,) = [plugin for plugin in listed if plugin["plugin"] == "toy-box"]
    assert plugin["commands"] == ["greet", "toys"]
    assert [component["name"] for component in plugin["components"]] == ["toy"]
    assert "command: greet, toys" in genkit_("list-plugins")[1]


def test_a_command_may_end_with_a_code_of_its_own(install, genkit_):
    install("toy-box", BOTH)
    assert genkit_("toys", "leave", 3) == (3, "", "")
    assert genkit_("toys", "abort", 4) == (4, "", "")
    assert genkit_("toys", "count", "many")[0] == 2


def test_a_command_that_raises_names_its_plugin(install, genkit_):
    install("toy-box", BOTH)
    code, out, err = genkit_("toys", "fail")
    assert (code, out) == (2, "")
    assert "plugin toy-box (toy-box 1.5) raised ValueError: no toy in this box" in err
    assert "Traceback" not in err
    code, _, err = genkit_("toys", "fail", "--traceback")
    assert code == 2
    assert "Traceback" in err
    assert "toy_toy_box.py" in err


@pytest.mark.parametrize("name", sorted(CORE_COMMANDS))
def test_no_plugin_takes_a_command_of_the_core(install, genkit_, name):
    install("aaa", GREET.format(name=name))
    (failed,) = load_plugins().failed
    assert failed.commands == ()
    assert f'command "{name}" is already registered by genkit itself' in failed.reason
    assert "plugin aaa (aaa 1.5)" in failed.reason
    code, _, err = genkit_("modest")
    assert code == 2
    assert "plugin aaa (aaa 1.5) failed to load" in err


def test_a_command_that_another_plugin_has_leaves_nothing_behind(install):
    install("a-first", BOTH)
    install("b-second", BOTH.replace('"toy"', '"other"').replace('"greet"', '"wave"'))
    plugins = load_plugins()
    (failed,) = plugins.failed
    assert 'command "toys" is already registered by plugin a-first (a-first 1.5)' in failed.reason
    assert set(plugins.registry.commands) >= {"greet", "toys"}
    assert "wave" not in plugins.registry.commands
    assert "other" not in [entry.name for entry in plugins.registry.entries("coupler")]


def test_an_unknown_command_is_told_with_a_near_match(genkit_):
    code, out, err = genkit_("validat")
    assert (code, out) == (2, "")
    assert 'did you mean "validate"' in err


AFTER = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_after_run(folder):
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    print("after", folder.name, *names)
    {then}
"""


def test_a_plugin_is_called_after_a_run(install, genkit_, tmp_path):
    install("toy-box", AFTER.format(then="pass"))
    code, out, _ = genkit_("run", "smoke", *TINY, "--out", tmp_path / "run")
    assert code == 0
    assert "after run 01-denoiser 02-samples 03-scores\n" in out
    assert "after run" not in genkit_("run", "smoke", *TINY, "--dry-run")[1]


def test_a_plugin_is_called_after_a_run_that_failed(install, genkit_, tmp_path):
    install("toy-box", AFTER.format(then="pass"))
    refused = ("--set", "samples.count=0")
    code, out, _ = genkit_("run", "smoke", *TINY, *refused, "--out", tmp_path / "refused")
    assert (code, out) == (2, "")  # nothing ran
    genkit_("run", "smoke", *TINY, "--out", tmp_path / "run")
    code, out, _ = genkit_("run", "smoke", *TINY, "--redo", "nothing", "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    other = ("--set", "name=other", "--out", tmp_path / "run")
    assert genkit_("run", "smoke", *TINY, *other)[:2] == (2, "")
    infinite = ("--set", "denoiser.optimizer.learning_rate=1e30")
    code, out, _ = genkit_("run", "smoke", *TINY, *infinite, "--out", tmp_path / "infinite")
    assert (code, out.splitlines()[-1]) == (3, "after infinite 01-denoiser")


def test_a_plugin_is_called_after_an_error_in_a_stage_that_a_user_can_correct(
    install, genkit_, tmp_path, monkeypatch
):
    install("toy-box", AFTER.format(then="pass"))

    def full(self, context):
        raise MemoryError

    monkeypatch.setattr("genkit_stages.sample.Sample.run", full)
    code, out, _ = genkit_("run", "smoke", *TINY, "--out", tmp_path / "run")
    assert (code, out.splitlines()[-1]) == (2, "after run 01-denoiser 02-samples")


@pytest.mark.parametrize("then", ["raise ValueError('no toy')", "raise SystemExit(5)"])
def test_a_plugin_that_fails_after_a_run_is_a_warning(install, genkit_, tmp_path, then):
    install("toy-box", AFTER.format(then=then))
    code, _, err = genkit_("run", "smoke", *TINY, "--out", tmp_path / "run")
    assert code == 0
    assert "Warning: plugin toy-box (toy-box 1.5) failed after the run" in err
