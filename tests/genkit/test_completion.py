"""Completion in a shell, as a shell asks for it; without torch, since it must be fast."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from recipes import QUICK


@pytest.fixture
def completed(genkit_, monkeypatch):
    """Return the completions of the last word of a command line."""

    def complete(*words):
        monkeypatch.setenv("_GENKIT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("genkit", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        code, out, err = genkit_()
        assert (code, err) == (0, "")
        return out.split()

    return complete


def test_commands_of_genkit_and_of_plugins(completed):
    assert completed("r") == ["run", "report", "runs"]
    assert completed("bench", "c") == ["couplers"]


def test_recipes_components_kinds_and_devices(completed):
    assert completed("run", "edm_aot_c") == ["edm_aot_cond", "edm_aot_cond_dg"]
    assert completed("validate", "smo") == ["smoke"]
    assert completed("show", "hung") == ["hungarian"]
    assert completed("new", "plugin", "sc") == ["schedule"]
    assert completed("new", "recipe", "mine", "--from", "smo") == ["smoke"]
    assert "smoke" in completed("show", "s")
    assert completed("show", "edm", "--kind", "sc") == ["schedule"]
    assert completed("run", "smoke", "--device", "m") == ["mps"]
    assert completed("run", "nowhere/") == []  # so that the shell completes files


@pytest.mark.parametrize("before", [(), ("--dry-run",), ("--set", "seed=3")])
def test_stages_of_the_recipe(completed, before):
    assert completed("run", "smoke", *before, "--redo", "s") == ["samples", "scores"]


@pytest.mark.parametrize("recipe", [(), ("nowhere",), ("broken.toml",), ("odd.toml",)])
def test_a_recipe_that_cannot_be_read_completes_nothing(completed, tmp_path, monkeypatch, recipe):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("name = [")
    (tmp_path / "odd.toml").write_text("stage = 5")
    assert completed("run", *recipe, "--redo", "s") == []
    assert completed("run", *recipe, "--set", "denoiser.i") == []


def keys_completed(recipe, prefix, cwd):
    """Return completions of ``--set``, and whether torch was imported, in a process of its own."""
    code = (
        "import sys\n"
        "from genkit.cli import main\n"
        "try: main()\n"
        "finally: print('TORCH' if 'torch' in sys.modules else 'NONE')"
    )
    asked = {
        "_GENKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": f"genkit run {recipe} --set {prefix}",
        "COMP_CWORD": "4",
    }
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | asked, cwd=cwd
    )
    *found, torch = done.stdout.split()
    return found, torch


def test_settings_of_the_recipe_without_torch(tmp_path):
    (tmp_path / "quick.toml").write_text(QUICK.replace("images", "imagse"))  # has a mistake
    found, torch = keys_completed("smoke", "denoiser.co", tmp_path)
    assert torch == "NONE"
    assert {"denoiser.coupler=", "denoiser.coupler.cost=", "denoiser.compile="} == {
        key for key in found if "tolerance" not in key
    }
    assert keys_completed("quick.toml", "se", tmp_path) == (["seed="], "NONE")


def test_the_script_of_a_shell_is_printed(genkit_, monkeypatch):
    monkeypatch.setenv("_GENKIT_COMPLETE", "source_bash")
    code, out, _ = genkit_()
    assert code == 0
    assert "complete -o default -F" in out
