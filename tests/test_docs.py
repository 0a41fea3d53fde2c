"""What the pages show works: Python runs, recipes are valid, commands are accepted."""

from __future__ import annotations

import doctest
import gzip
import importlib
import re
import shlex
import shutil
import struct
import subprocess
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import tomli_w
import torch
from PIL import Image

import genkit
from genkit import cli
from genkit.errors import Code
from genkit.plugin.kinds import KINDS
from genkit.plugin.manager import load_plugins
from genkit.recipe.overrides import TOP_LEVEL
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source, read_source
from genkit.testing import check_component, check_coupler
from genkit.types import DataSpec
from published_adm import write_published

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial" / "write-a-coupler.md"
EXTEND = ROOT / "docs" / "how-to" / "extend.md"
GUIDES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
WRITTEN = "<!-- Written by docs/generate.py"
READ = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
READ = [page for page in READ if not page.stem.endswith("_reading")]  # parts of other pages
PAGES = [  # by hand: docs/generate.py writes the others
    README,
    *(p for p in READ if "docs" in p.parts and WRITTEN not in p.read_text(encoding="utf-8")),
]
NAMED = re.compile(r"^\*\*`([^`\n]+)`\*\*[^\n]*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "module", ["artifacts.coupling", "paired_loader", "parts.frozen", "recipe.in_code"]
)
def test_examples_of_docstrings_run(module: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(f"genkit.{module}"))
    assert (failed, attempted > 0) == (0, True)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language in the order of the page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def with_blocks(language: str, among: list[Path]) -> list[Any]:
    """Return the pages that have code blocks of a language, as parameters of a test."""
    return [
        pytest.param(page, id=page.relative_to(ROOT).as_posix())
        for page in among
        if blocks(page, language)
    ]


def commands(page: Path) -> list[list[str]]:
    """Return the genkit commands of a page, split as a shell does."""
    lines = "".join(blocks(page, "bash")).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("genkit ")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a small denoiser, with a discriminator of random weights beside it."""
    settings = {"denoiser.images": 256, "denoiser.batch_size": 64, "denoiser.network.width": 8}
    less = {"samples.count": 2, "scores.metrics": [{"use": "truncation", "count": 2}]}
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = genkit.run_recipe("smoke", out=folder, settings={**settings, **less})
    judge = folder / "09-discriminator" / "discriminator.safetensors"
    judge.parent.mkdir()
    write_network(judge, "discriminator", "mlp-discriminator", result.denoiser().spec)
    return folder


SMALL_CLASSIFIER = {"channels": 64, "multipliers": [1, 2], "blocks": 1, "attention": [16]}


def write_network(path: Path, kind: str, name: str, spec: DataSpec, **settings: Any) -> None:
    """Write a network of random weights."""
    network = genkit.component(kind, name, **settings)
    table = {"use": name, **settings}
    network.output(table, spec, network.build(spec).state_dict()).save(path)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, edm_files: Any) -> Path:
    """The networks of other projects that the pages speak of."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "network-snapshot-200000.pkl").write_bytes(
        edm_files.emitted(edm_files.snapshot(*edm_files.made_up()))
    )
    small = genkit.component("classifier", "noisy-classifier", **SMALL_CLASSIFIER)
    write_published(folder / "32x32_classifier.pt", small, 32)
    (folder / "raw-snapshots").mkdir()
    for length in ("0.050", "0.100"):
        (folder / "raw-snapshots" / f"network-snapshot-0002097-{length}.pkl").write_bytes(
            edm_files.emitted(edm_files.edm2_snapshot(*edm_files.made_up_edm2()))
        )
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path) -> Path:
    """An empty current directory with the data that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / name / "0001.png")
    (tmp_path / "fashion").mkdir()
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 2) + bytes([0, 1])
    for name, content in (("images-idx3", images), ("labels-idx1", labels)):
        (tmp_path / "fashion" / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    (tmp_path / "cifar10").mkdir()
    with (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").open("wb") as archive:
        archive.truncate(170_052_171)  # validation looks at the size alone; it takes no room
    numpy.savez(tmp_path / "photos.npz", numpy.zeros((2, 32, 32, 3), numpy.uint8), [0, 1])
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in (1, 2):  # a score requires two
            archive.write(tmp_path / "photos" / "cats" / "0001.png", f"000{number}.png")
        archive.writestr("dataset.json", '{"labels": [["0001.png", 1], ["0002.png", 0]]}')
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    batches = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        (batches / f"{name}.bin").touch()
    return tmp_path


def write_extended(folder: Path) -> Path:
    """Write the package of the page on all kinds: its hook, and one module of all examples."""
    project = dict(NAMED.findall(TUTORIAL.read_text(encoding="utf-8")))["pyproject.toml"]
    (hook,) = [block for block in blocks(EXTEND, "python") if "genkit_register" in block]
    parts = "\n\n".join(block for block in blocks(EXTEND, "python") if block != hook)
    package = folder / "genkit_extended"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(project.replace("greedy", "extended"))
    (package / "__init__.py").write_text(hook)
    (package / "parts.py").write_text(parts)
    return folder


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, installed: Any) -> Iterator[Any]:
    """The module of all examples, whose components are registered."""
    folder = tmp_path_factory.mktemp("extended")
    with pytest.MonkeyPatch.context() as monkeypatch:
        installed(write_extended(folder / "genkit-extended"), folder / "site", monkeypatch)
        yield importlib.import_module("genkit_extended.parts")


def execute(code: str, names: dict[str, Any]) -> None:
    """Run a page's Python, without the ``from __future__`` of this module."""
    names["__name__"] = "page"
    exec(compile(code, "page", "exec", dont_inherit=True), names)  # noqa: S102


def write_named(page: Path, folder: Path) -> None:
    """Write the recipes to which a page gives a name."""
    for name, text in NAMED.findall(page.read_text(encoding="utf-8")):
        if name.endswith(".toml") and "/" not in name and name != "pyproject.toml":
            (folder / name).write_text(text, encoding="utf-8")


def completed(fragment: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe around a fragment: what it leaves out is as in ``edm_aot_dg``.

    Keys that belong to no recipe's top are settings of the stage that trains the denoiser.
    """
    base = tomllib.loads((ROOT / "recipes" / "edm_aot_dg.toml").read_text(encoding="utf-8"))
    stages = {stage["id"]: stage for stage in base["stage"]}
    given = {stage["id"]: stage for stage in fragment.get("stage", [])}
    order, below = list(stages), None
    for name in reversed(given):  # a new stage goes before the one that follows it in the fragment
        if name in order:
            below = order.index(name)
        else:
            below = len(order) if below is None else below
            order.insert(below, name)
    stages = {name: given.get(name) or stages[name] for name in order}
    if "data" in fragment:  # the classifier of the digits has no features of other items
        for name in {"scores", "sweep"} - given.keys():
            stages[name]["metrics"] = [{"use": "frechet", "extractor": {"use": "pixels"}}]
    for key, value in fragment.items():
        if key in TOP_LEVEL and key != "stage":
            base[key] = value
        elif key != "stage":
            stages["denoiser"][key] = value
    return {**base, "stage": list(stages.values())}


@pytest.mark.parametrize("page", with_blocks("python", GUIDES))
def test_python_of_a_guide_runs(
    page: Path, workplace: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(trained / "01-denoiser" / "denoiser.safetensors", "edm.safetensors")
    run: Callable[..., genkit.Result] = genkit.run_recipe

    def small(*args: Any, settings: dict[str, Any] | None = None, **kwargs: Any) -> genkit.Result:
        less = {**(settings or {}), "denoiser.images": 2000, "samples.count": 64}
        return run(*args, settings=less, **kwargs)

    monkeypatch.setattr(genkit, "run_recipe", small)
    execute("\n".join(blocks(page, "python")), {})


def test_the_readmes_coupler_runs_in_a_loop() -> None:
    (code,) = [block for block in blocks(README, "python") if "genkit.component" in block]
    images, noise = torch.randn(8, 2), torch.randn(8, 2)
    names = {"images": images, "noise": noise, "generator": torch.Generator()}
    execute(code, names)
    assert names["noise"].shape == noise.shape
    assert not torch.equal(names["noise"], noise)


@pytest.mark.parametrize("page", with_blocks("toml", [p for p in PAGES if p != TUTORIAL]))
def test_recipes_of_a_page_are_valid(page: Path, workplace: Path, extended: Any) -> None:
    plugins = load_plugins()
    write_network(Path("edm.safetensors"), "denoiser", "mlp", DataSpec((3, 32, 32)), width=8)
    classifier, spec = Path("classifier.safetensors"), DataSpec((3, 32, 32), classes=2)
    write_network(classifier, "classifier", "noisy-classifier", spec, **SMALL_CLASSIFIER)
    for text in blocks(page, "toml"):
        table = tomllib.loads(text)
        if "name" not in table:
            text = tomli_w.dumps(completed(table))
        load_recipe(Source.parse(text, page.name), plugins)


@pytest.mark.parametrize("page", with_blocks("bash", PAGES))
@pytest.mark.usefixtures("inside")
def test_commands_of_a_page_are_accepted(page: Path, workplace: Path, trained: Path) -> None:
    write_named(page, workplace)
    for arguments in commands(page):
        if arguments[0] == "export":  # of a run that the page's reader has made
            shutil.copytree(trained, workplace / arguments[1])
        if any("greedy" in part for part in arguments):
            continue  # the plugin of the tutorial is installed in test_stranger.py
        if arguments[:2] == ["data", "get"]:
            continue  # asks the web
        if arguments[0] == "verify":
            continue  # of a finished run, as in tests/plugins/genkit_files/test_verify.py
        # The machine that tests the page need not have the GPU that it speaks of.
        arguments = ["cpu" if part.startswith("cuda") else part for part in arguments]
        less = ["--dry-run"] if arguments[0] == "run" and "--dry-run" not in arguments else []
        if arguments == ["bench", "couplers"]:
            less = ["--sizes", "64", "--repeats", "1"]
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, *less])
        assert ended.value.code in (None, 0), arguments
        if arguments[0] == "export":
            shutil.rmtree(workplace / "runs")
    assert not (workplace / "runs").exists()


def test_the_tutorials_coupler_keeps_all_laws() -> None:
    modules = [block for block in blocks(TUTORIAL, "python") if "class Greedy" in block]
    assert len(modules) == 2  # without and with a setting
    for module in modules:
        names: dict[str, Any] = {}
        execute(module, names)
        check_coupler(names["Greedy"]())


EXAMPLES = re.findall(r"^def (test_\w+)\(", EXTEND.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_of_a_kind_keeps_its_laws(extended: Any, example: str) -> None:
    getattr(extended, example)()


def test_the_example_of_a_hook_prints_the_scores_of_a_run(
    extended: Any, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("genkit_extended").genkit_after_run(folder=trained)
    assert capsys.readouterr().out.startswith("scores ")


def test_every_kind_has_an_example_a_recipe_and_a_contract_test(extended: Any) -> None:
    registry = load_plugins().registry
    ours = [e for e in registry.entries() if e.owner.distribution == "genkit-extended"]
    assert [entry.kind for entry in ours] == list(KINDS)
    for entry in ours:
        check_component(registry.load(entry))
    assert {f"test_{kind.replace('-', '_')}" for kind in KINDS} == set(EXAMPLES)
    sections = re.split(r"^### ", EXTEND.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert {section.partition("\n")[0] for section in sections} == set(KINDS)
    uses = "".join(blocks(EXTEND, "toml"))
    for entry in ours:  # an importer is named on the command line
        named = f'use = "{entry.name}"' in uses
        assert named or f"--as {entry.name}" in EXTEND.read_text(encoding="utf-8"), entry.name


@pytest.mark.parametrize("pair", [("edm", "edm_aot"), ("edm_aot", "edm_aot_dg")])
def test_the_readme_shows_the_recipes_differences(pair: tuple[str, str]) -> None:
    files = [f"recipes/{name}.toml" for name in pair]
    found = subprocess.run(["diff", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"$ diff {' '.join(files)}\n{found.stdout}" in blocks(README, "diff")


def test_the_page_of_problems_lists_all_codes() -> None:
    text = (ROOT / "docs" / "reference" / "problems.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(code.value, code.meaning) for code in Code]


def test_edm_aot_differs_from_edm_in_name_coupler_and_pool_alone() -> None:
    tables = [read_source(ROOT / "recipes" / f"{name}.toml").table for name in ("edm", "edm_aot")]
    (edm, aot), stages = tables, [{s["id"]: s for s in t["stage"]} for t in tables]
    assert {key for key in edm if edm[key] != aot[key]} == {"name", "stage"}
    assert [key for key in stages[0] if stages[0][key] != stages[1][key]] == ["denoiser"]
    one, other = stages[0]["denoiser"], stages[1]["denoiser"]
    assert {k for k in one | other if one.get(k) != other.get(k)} == {"coupler", "pool_size"}


def test_the_readme_has_its_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    environment = "python3.11 -m venv .venv{0} && .venv{0}/bin/pip install -c constraints.txt"
    for name, command in {
        "run": environment.format("") + " . && .venv/bin/genkit run recipes/edm_aot_dg.toml",
        "test": environment.format("-nox") + " nox && .venv-nox/bin/nox",
    }.items():
        assert f"<!-- {name} command -->\n```bash\n{command}\n```\n" in text
    (version,) = re.findall(r"pip install torch==(\S+) --index-url", text)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"torch=={version}" in constraints


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # The script's own extraction, without running what it finds.
    shown = script.replace('eval "$command"', "").replace('$(dirname "$0")/..', str(ROOT))
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    command = done.stdout.strip()
    assert f"<!-- test command -->\n```bash\n{command}\n```" in README.read_text(encoding="utf-8")
    assert command.endswith("/bin/nox")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Sphinx make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in READ]
)
def test_no_page_is_empty_and_no_link_is_dead(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^# .+\n\n\S|^```\{include\}", text, re.MULTILINE), "a title and no text"
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        place = (page.parent / target) if target else page
        assert place.exists(), link
        assert not anchor or anchor in anchors(place), link


def test_no_page_names_the_score_fid() -> None:
    for page in PAGES:
        assert 'use = "fid"' not in page.read_text(encoding="utf-8")
