"""The floor plan of docs/explanation/architecture.md, held by walking the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = {
    "types": 0,
    "errors": 0,
    "files": 0,
    "tensors": 0,
    "random": 0,
    "settings": 0,
    "field_types": 0,
    "fields": 0,
    "world": 0,
    "pickles": 0,
    "parts": 1,
    "commands": 5,
    "machine": 2,
    "terminal": 1,
    "interfaces": 1,
    "plugin": 2,
    "recipe": 2,
    "independent": 2,
    "pairs": 2,
    "latents": 2,
    "builtin": 3,
    "train": 3,
    "sample": 3,
    "testing": 3,
    "run": 4,
    "report": 4,
    "api": 5,
    "cli": 5,
    "__main__": 6,
    "__init__": 0,
}
"""Where each room of genkit lies; a room imports those below it and beside it."""

PUBLIC = {
    "types",
    "errors",
    "files",
    "tensors",
    "random",
    "settings",
    "interfaces",
    "plugin",
    "pairs",
    "sample",
    "latents",
    "world",
    "pickles",
    "parts",
    "machine",
    "recipe",
    "terminal",
    "train",
    "__init__",
}
"""The rooms that a plugin may import: the contracts, and how a denoiser is sampled."""

PICKLES = "genkit/pickles/reader.py"
"""The one file that uses the standard library's unpickler."""

LONG = {"genkit/interfaces.py"}
"""Files of more than one idea: every abstract base is on one page on purpose."""

CORE = sorted((ROOT / "genkit").rglob("*.py"))
# Separate distributions keep their tests beside their package.
PLUGINS = sorted(
    path for path in (ROOT / "plugins").rglob("*.py") if "tests" not in path.relative_to(ROOT).parts
)
SEPARATE = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Yield every module that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            if node.module == "genkit":
                yield from (f"genkit.{alias.name}" for alias in node.names)
            else:
                yield node.module


def package(path):
    """Return the package of a plugin's file: that of genkit-immiscible is genkit_immiscible."""
    return path.relative_to(ROOT / "plugins").parts[0].replace("-", "_")


def table(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def room(path):
    return path.relative_to(ROOT / "genkit").parts[0].removesuffix(".py")


def room_of_module(module):
    return [*module.split("."), "__init__"][1]


def test_every_room_has_a_layer():
    assert {room(path) for path in CORE} == set(LAYERS)


def test_a_room_imports_nothing_above_it():
    allowed = {
        # genkit's names are imported on their first use.
        ("__init__", "api"),
    }
    found = {
        (room(path), room_of_module(module))
        for path in CORE
        for module in imports(path)
        if module.split(".")[0] == "genkit"
    }
    above = {(one, other) for one, other in found if LAYERS[one] < LAYERS[other]}
    assert above - allowed == set()


def test_the_core_imports_no_plugin():
    for path in CORE:
        named = [m for m in imports(path) if m.startswith("genkit_")]
        assert named == [], name_of(path)


def test_a_plugin_imports_public_names_and_no_other_plugin():
    for path in PLUGINS:
        for module in imports(path):
            first = module.split(".")[0]
            if first == "genkit":
                assert room_of_module(module) in PUBLIC, f"{name_of(path)} imports {module}"
            elif first.startswith("genkit_"):
                assert first == package(path), f"{name_of(path)} imports {module}"


def test_a_plugins_init_imports_nothing_heavy():
    found = [path for path in PLUGINS if path.parent.name == package(path)]
    for path in (path for path in found if path.name == "__init__.py"):
        light = {"__future__", "typing", "genkit", "typer", package(path)}
        assert {m.split(".")[0] for m in imports(path)} <= light


@pytest.mark.parametrize("folder", SEPARATE, ids=name_of)
def test_a_separate_distribution_is_a_strangers(folder):
    """It names itself, depends on genkit and is found by its entry point; genkit ships it not."""
    name = folder.name.replace("-", "_")
    assert {path.relative_to(folder).parts[0] for path in PLUGINS if folder in path.parents} == {
        name
    }
    project = table(folder)["project"]
    assert project["name"] == folder.name
    assert any(needed.startswith("genkit-diffusion") for needed in project["dependencies"])
    assert name in project["entry-points"]["genkit.plugins"].values()
    assert list((folder / "tests").glob("test_*.py"))
    assert (folder / project["readme"]).is_file()
    ours = table(ROOT)
    shipped = {
        Path(part).name for part in ours["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    assert name not in shipped
    assert name not in ours["project"]["entry-points"]["genkit.plugins"].values()


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)
def test_habits_of_a_file(path):
    text = path.read_text(encoding="utf-8")
    limit = 960 if name_of(path) in LONG else 320
    assert len(text.splitlines()) <= limit
    for node in ast.walk(parsed(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where} asserts"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{where} bare"
        if isinstance(node, ast.Attribute):
            called = ast.unparse(node)
            assert called != "torch.manual_seed", f"{where} changes global random state"
            # Of pickle a file may catch the error, and the reader may use opcodes.
            opcode = name_of(path) == PICKLES and called.removeprefix("pickle.").isupper()
            allowed = opcode or called == "pickle.UnpicklingError"
            assert not called.startswith("pickle.") or allowed, where
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            names = [alias.name for alias in node.names]
            assert (name_of(path), names) == (PICKLES, ["_Unpickler"]), where
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            limits = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert limits.get("weights_only") == "True", f"{where} unpickles"
    found = set(imports(path))
    assert not any(module.startswith("pickle.") for module in found)
    unpickling = {"cPickle", "_pickle", "dill", "joblib", "marshal", "shelve"}
    assert not unpickling & {module.split(".")[0] for module in found}


RECIPE = """
name = "light"
data = { use = "moons", items = 100 }

[[stage]]
id = "denoiser"
use = "train"
images = 64
batch_size = 32
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 4
schedule = { use = "edm", steps = 2 }
"""


def test_a_run_imports_no_library_that_its_recipe_does_not_use(tmp_path):
    (tmp_path / "light.toml").write_text(RECIPE)
    code = (
        "import sys\n"
        "from genkit.cli import main\n"
        "try: main(['run', 'light.toml', '--device', 'cpu'])\n"
        "finally: print('HEAVY', sorted({'ot', 'torchmetrics'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.endswith("HEAVY []\n")
    assert (tmp_path / "runs/light/02-samples/samples.safetensors").is_file()
