"""The layers of docs/explanation/architecture.md, checked against all imports."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from genkit.plugin.kinds import KINDS
from genkit.plugin.manager import OURS, load_plugins

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

LAYERS = {
    "types": 0,
    "errors": 0,
    "notebook": 0,
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
    "completion": 2,
    "machine": 2,
    "terminal": 1,
    "artifacts": 1,
    "interfaces": 1,
    "plugin": 2,
    "recipe": 2,
    "networks": 2,
    "blame": 2,
    "independent": 2,
    "pairs": 2,
    "designs": 2,
    "versions": 2,
    "features": 3,
    "items": 2,
    "rows": 2,
    "latents": 2,
    "start": 2,
    "corrections": 3,
    "costs": 3,
    "builtin": 3,
    "train": 3,
    "sample": 3,
    "testing": 4,
    "run": 4,
    "report": 3,
    "paired_loader": 3,
    "denoiser": 5,
    "api": 5,
    "cli": 5,
    "__main__": 6,
    "__init__": 0,
}
"""Where each room of genkit lies; a room imports those below it and beside it."""

PUBLIC = {
    "api",
    "denoiser",
    "start",
    "artifacts",
    "blame",
    "types",
    "errors",
    "files",
    "tensors",
    "random",
    "settings",
    "fields",
    "field_types",
    "interfaces",
    "plugin",
    "pairs",
    "designs",
    "networks",
    "versions",
    "features",
    "items",
    "sample",
    "latents",
    "costs",
    "world",
    "pickles",
    "parts",
    "machine",
    "recipe",
    "terminal",
    "completion",
    "train",
    "__init__",
}
"""The rooms that a plugin may import: the contracts, and how a denoiser is sampled."""

PICKLES = "genkit/pickles/reader.py"
"""The one file that uses the standard library's unpickler."""

MOST_LINES = 22828
"""Lines of the core. The goal is 10,500: lower this with every change that removes some."""

LAZY = {"genkit", "genkit.plugin"}
"""Modules whose names are imported on their first use, from rooms above them as well."""

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
    found = {
        (room(path), room_of_module(module))
        for path in CORE
        if module_of(path) not in LAZY
        for module in imports(path)
        if module.split(".")[0] == "genkit"
    }
    above = {(one, other) for one, other in found if LAYERS[one] < LAYERS[other]}
    assert above == set()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph():
    """Return the modules of the core that each imports.

    Imports inside functions count, and so do those for type checking: two files that name each
    other's types cannot be understood one after the other either.
    """
    modules = {module_of(path): path for path in CORE}
    graph = {}
    for module, path in modules.items():
        found = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & modules.keys()) or {node.module}
        graph[module] = found & modules.keys()
    return graph


def require_no_circle(graph):
    """Raise if something imports itself, over others."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


def test_no_module_of_the_core_imports_itself_over_others():
    require_no_circle(import_graph())


def test_no_room_of_the_core_imports_itself_over_others():
    rooms = {room(path): set() for path in CORE}
    for module, others in import_graph().items():
        if module not in LAZY:
            own = room_of_module(module)
            rooms[own] |= {room_of_module(other) for other in others} - {own, "__init__"}
    require_no_circle(rooms)


def test_a_circle_is_found():
    with pytest.raises(AssertionError, match=r"a <- b <- a|b <- a <- b"):
        require_no_circle({"a": {"b"}, "b": {"a"}})


def test_the_core_imports_no_plugin():
    for path in CORE:
        named = [m for m in imports(path) if m.startswith("genkit_")]
        assert named == [], name_of(path)


def algorithms():
    """Return the names, classes and packages of first-party components."""
    ours = [s for s in load_plugins().loaded if s.owner.distribution == OURS]
    entries = [e for s in ours for e in s.entries if not e.target.startswith("genkit.")]
    named = {e.name for e in entries} | {e.target.rpartition(":")[2] for e in entries}
    named |= {package(path) for path in PLUGINS}
    return named - KINDS.keys()  # classifier and discriminator are components and kinds


def decided_by(tree, names):
    """Return where code decides by a name: compares it, matches it, looks it up, imports it.

    To name a default, as ``use={"use": "heun"}``, is no decision: a recipe may name another.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            looked_at = [node.left, *node.comparators]
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
            looked_at = [node.test]
        elif isinstance(node, ast.match_case):
            looked_at = [node.pattern]
        elif isinstance(node, ast.Dict):
            looked_at = [key for key in node.keys if key]
        elif isinstance(node, ast.Call):
            looked_at = [a for a in node.args if ast.unparse(node.func).endswith("import_module")]
        else:
            continue
        for part in looked_at:
            for inner in ast.walk(part):
                value = inner.value if isinstance(inner, ast.Constant) else None
                if isinstance(value, str) and value.partition(".")[0] in names:
                    yield f"{node.lineno if hasattr(node, 'lineno') else part.lineno}: {value}"


def test_the_core_decides_nothing_by_the_name_of_an_algorithm():
    names = algorithms()
    assert {"hungarian", "Hungarian", "heun", "edm", "ema"} <= names
    found = [f"{name_of(p)}:{at}" for p in CORE for at in decided_by(parsed(p), names)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'if coupler.use == "hungarian": pass',
        'exact = type(coupler).__name__ in ("Hungarian", "Exact")',
        'match name:\n    case "heun": pass',
        'steps = {"heun": 2, "other": 1}[name]',
        'x = 1 if name.startswith("heun") else 2',
        'importlib.import_module("genkit_aot.hungarian")',
    ],
)
def test_a_decision_by_the_name_of_an_algorithm_is_found(code):
    names = {"hungarian", "Hungarian", "heun", "genkit_aot"}
    assert list(decided_by(ast.parse(code), names))
    assert not list(decided_by(ast.parse('solver = setting(use={"use": "heun"})'), names))


def test_files_of_one_run_of_the_tests_are_kept(pytestconfig):
    # Not those of failed tests alone: pytest 8.3 would give a folder of the same name to the next
    # test, and Python a module that it had imported from there.
    assert pytestconfig.getini("tmp_path_retention_policy") == "all"
    assert int(pytestconfig.getini("tmp_path_retention_count")) == 1


def test_the_core_stays_small():
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in CORE)
    assert lines <= MOST_LINES


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
        light = {"__future__", "pathlib", "typing", "genkit", "typer", package(path)}
        assert {m.split(".")[0] for m in imports(path)} <= light


def test_a_separate_distribution_uses_the_one_import():
    for path in (path for path in PLUGINS if any(folder in path.parents for folder in SEPARATE)):
        ours = {m for m in imports(path) if m.split(".")[0] == "genkit"}
        assert ours <= {"genkit.plugin"}, name_of(path)


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
    assert len(text.splitlines()) <= 320
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
