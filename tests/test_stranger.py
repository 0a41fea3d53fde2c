"""The plugin of the tutorial, as a stranger would build and use it, beside plugins that fail.

The files are taken from the page itself: ``docs/tutorial/write-a-coupler.md`` is their source.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
THIRD_PARTY = ROOT / "tests" / "third_party" / "genkit-outside"
TUTORIAL = ROOT / "docs" / "tutorial" / "write-a-coupler.md"
FILE = re.compile(r"^\*\*`([^`\n]+)`\*\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COUPLER = 'denoiser.coupler={ use = "greedy" }'

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "genkit-{name}"
version = "0.0.1"

[project.entry-points."genkit.plugins"]
{name} = "genkit_{name}"
"""

MISBEHAVING = {
    "raising": (
        'raise RuntimeError("the licence has expired")\n',
        "RuntimeError: the licence has expired",
    ),
    "misnamed": (
        "from genkit.plugin import hookimpl\n\n\n"
        "@hookimpl\ndef genkit_register(registry, colour):\n    pass\n",
        "colour",
    ),
    "commanding": (
        "from genkit.plugin import hookimpl\n\n\n"
        "@hookimpl\ndef genkit_commands(app):\n"
        '    app.command("modest")(lambda: None)\n'
        '    app.command("run")(lambda: None)\n',
        'command "run" is already registered by genkit itself',
    ),
    "grasping": (
        "from genkit.plugin import hookimpl\n\n\n"
        "@hookimpl\ndef genkit_register(registry):\n"
        '    registry.add("coupler", "modest", "genkit_grasping:Modest")\n'
        '    registry.add("coupler", "hungarian", "genkit_grasping:Mine")\n',
        'coupler "hungarian" is already registered by plugin aot (genkit-diffusion',
    ),
}
"""Module and expected reason, by the name of the plugin."""


COMMANDS = """\
from genkit.plugin import hookimpl


@hookimpl
def genkit_commands(app):
    @app.command()
    def couplers(fails: bool = False):
        "List the couplers that are installed."
        from genkit.plugin.manager import load_plugins

        if fails:
            raise KeyError("couplers")
        print(*(entry.name for entry in load_plugins().registry.entries("coupler")))
"""


def tutorial_files() -> dict[str, str]:
    """Return the files of the page by their path; the package's, and the test of its own."""
    return dict(FILE.findall(TUTORIAL.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Environment:
    """A fresh environment with genkit's wheel and the plugin of the tutorial."""

    python: Path
    folder: Path

    def run(self, *command: object, **variables: str) -> str:
        """Run a program of the environment, which must succeed, and return its stdout."""
        done = self.finish(*command, **variables)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def finish(self, *command: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, away from the checkout."""
        program, *arguments = map(str, command)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
        return subprocess.run(
            [self.python.with_name(program), *arguments],
            cwd=self.folder,
            env=clean | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, *what: object) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", *what)

    def build(self, *packages: object) -> None:
        """Install packages with the build backend of the environment, which takes less time."""
        self.install("--no-deps", "--no-build-isolation", *packages)

    def plugins(self) -> dict[str, dict[str, Any]]:
        """Return what ``genkit list-plugins --json`` prints, by plugin."""
        listed = json.loads(self.run("genkit", "list-plugins", "--json"))["plugins"]
        return {plugin["plugin"]: plugin for plugin in listed}

    def train(self, out: str, *overrides: str) -> dict[str, Any]:
        """Run a small version of the shipped recipe ``smoke`` and return its results."""
        small = ["denoiser.images=2000", "samples.count=64", *overrides]
        options = [part for override in small for part in ("--set", override)]
        # A page takes as long as the training; the plugins of these tests are not on it.
        self.run("genkit", "run", "smoke", "--out", out, *options, GENKIT_DISABLE_PLUGINS="report")
        return json.loads((self.folder / out / "results.json").read_text(encoding="utf-8"))


def write_package(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def link_dependencies(folder: Path) -> None:
    """Link what genkit requires, and nothing else, from the environment of the tests.

    The session ``build`` installs it all. Here that would take a minute and 1.3 GB.
    """
    folder.mkdir()
    pending, names = [Requirement("genkit-diffusion")], {"genkit-diffusion"}
    while pending:
        parent = pending.pop()
        for requirement in map(Requirement, distribution(parent.name).requires or ()):
            marker, extras = requirement.marker, {"", *parent.extras}
            asked = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
            if asked and requirement.name not in names:
                names.add(requirement.name)
                pending.append(requirement)
    for name in names - {"genkit-diffusion"}:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():  # some share a package
                (folder / top).symlink_to(found.locate_file(top))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("stranger")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    link_dependencies(folder / "dependencies")
    (site,) = (folder / "venv").glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text(f"{folder / 'dependencies'}\n")
    made = Environment(folder / "venv" / "bin" / "python", folder)
    made.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("genkit_diffusion-*.whl")
    package = write_package(folder / "genkit-greedy", tutorial_files())
    made.install("--constraint", ROOT / "constraints.txt", wheel, package, "hatchling")
    return made


def test_the_package_has_fewer_than_40_lines() -> None:
    files = {n: text for n, text in tutorial_files().items() if not n.startswith("tests/")}
    assert set(files) == {"pyproject.toml", "genkit_greedy/__init__.py", "genkit_greedy/coupler.py"}
    assert sum(len(text.splitlines()) for text in files.values()) < 40


@pytest.mark.slow
def test_a_plugin_is_found_with_its_distribution_and_version(environment: Environment) -> None:
    found = environment.plugins()["greedy"]
    assert (found["distribution"], found["version"]) == ("genkit-greedy", "0.1.0")
    assert found["status"] == "loaded"
    assert found["components"] == [
        {"kind": "coupler", "name": "greedy", "target": "genkit_greedy.coupler:Greedy"}
    ]
    assert "genkit-greedy 0.1.0" in environment.run("genkit", "show", "greedy")


@pytest.mark.slow
def test_a_recipe_trains_with_it(environment: Environment) -> None:
    results = environment.train("greedy", COUPLER)
    assert results["stages"]["scores"]["rows"]
    resolved = (environment.folder / "greedy" / "resolved.toml").read_text(encoding="utf-8")
    assert 'use = "greedy"' in resolved


@pytest.mark.slow
def test_the_test_of_the_tutorial_passes(environment: Environment) -> None:
    test = tutorial_files()["tests/test_greedy.py"]
    environment.run("python", "-c", f"{test}\n\ntest_laws()")


@pytest.mark.slow
def test_a_command_of_a_plugin(environment: Environment) -> None:
    files = {
        "pyproject.toml": PYPROJECT.format(name="commands"),
        "genkit_commands/__init__.py": COMMANDS,
    }
    environment.build(write_package(environment.folder / "commands", files))
    assert environment.plugins()["commands"]["commands"] == ["couplers"]
    assert "List the couplers that are installed." in environment.run("genkit", "--help")
    assert {"greedy", "hungarian"} <= set(environment.run("genkit", "couplers").split())
    done = environment.finish("genkit", "couplers", "--fails")
    assert (done.returncode, done.stdout) == (2, "")
    assert "plugin commands (genkit-commands 0.0.1) raised KeyError: 'couplers'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in environment.finish("genkit", "couplers", "--fails", "--traceback").stderr


@pytest.mark.slow
def test_a_generated_package_is_installed(environment: Environment) -> None:
    environment.run("genkit", "new", "plugin", "solver", "forward")
    environment.install("--no-deps", "--editable", environment.folder / "genkit-forward")
    assert environment.plugins()["forward"]["status"] == "loaded"
    assert "genkit-forward 0.1.0" in environment.run("genkit", "show", "forward")
    test = "from test_forward import test_solver; test_solver()"
    code = f"import sys; sys.path.append('genkit-forward/tests'); {test}"
    environment.run("python", "-c", code)
    assert environment.train("forward", "samples.solver=forward")["stages"]["scores"]["rows"]


@pytest.mark.slow
def test_a_package_of_stages_is_installed(environment: Environment) -> None:
    environment.build(shutil.copytree(THIRD_PARTY, environment.folder / THIRD_PARTY.name))
    found = environment.plugins()["outside"]
    assert (found["distribution"], found["version"]) == ("genkit-outside", "1.5")
    assert (found["status"], found["commands"]) == ("loaded", ["spread"])
    copied = (
        'name = "copied"\n'
        '[[stage]]\nid = "network"\nuse = "load"\npath = "{}"\n'
        '[[stage]]\nid = "drawn"\nuse = "euler-samples"\ndenoiser = "network"\n'
        '[[stage]]\nid = "copied"\nuse = "copy-samples"\nsamples = "drawn"\n'
    )
    environment.train("outside")
    (file,) = (environment.folder / "outside").glob("*-denoiser/denoiser.safetensors")
    (environment.folder / "copied.toml").write_text(copied.format(file))
    environment.run("genkit", "run", "copied.toml", "--out", "copied")
    assert float(environment.run("genkit", "spread", "copied", "copied")) > 0


@pytest.mark.slow
def test_plugins_that_misbehave_are_told_and_harm_nobody(environment: Environment) -> None:
    before = environment.plugins()
    packages = [
        write_package(
            environment.folder / f"genkit-{name}",
            {
                "pyproject.toml": PYPROJECT.format(name=name),
                f"genkit_{name}/__init__.py": module,
            },
        )
        for name, (module, _) in MISBEHAVING.items()
    ]
    environment.build(*packages)
    found, listed = environment.plugins(), environment.run("genkit", "list-plugins")
    for name, (_, reason) in MISBEHAVING.items():
        assert found[name]["status"] == "failed"
        assert reason in found[name]["reason"]
        assert found[name]["components"] == found[name]["commands"] == []
        assert (found[name]["distribution"], found[name]["version"]) == (f"genkit-{name}", "0.0.1")
        assert reason in listed
    assert {name: plugin for name, plugin in found.items() if name not in MISBEHAVING} == before
    # The owner of the contested name and the stranger's plugin work as before.
    assert "genkit_aot.hungarian:Hungarian" in environment.run("genkit", "show", "hungarian")
    assert environment.train("beside", COUPLER)["stages"]["scores"]["rows"]
