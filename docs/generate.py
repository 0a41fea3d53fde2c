"""Write the parts of the reference that are taken from the code; `--check` fails where one is stale.

    python docs/generate.py
    python docs/generate.py --check

Components come from the registry, the help of commands from the command line, and the Python
reference from docstrings (griffe). The pages are committed, so that they are read without a build.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path

from griffe import GriffeLoader, Parser
from griffe2md import ConfigDict, Order, order_map, render_object_docs
from typer.testing import CliRunner

import genkit.pickles
import genkit.testing
from genkit.cli import app as command_line
from genkit.plugin import _NAMES as PLUGIN_NAMES
from genkit.plugin.kinds import KINDS
from genkit.plugin.manager import OURS, load_plugins
from genkit.plugin.registry import Entry, Registry, base_of
from genkit.report.components import settings_of

DOCS = Path(__file__).parent
ROOT = DOCS.parent
COMPONENTS = Path("reference/components")
PYTHON = Path("reference/python")
CLI = Path("reference/cli.md")

COMPONENT_INDEX = """# Components

The components of genkit's own plugins, by kind. A recipe names one with `{ use = "NAME" }`; `genkit show NAME` prints
the same tables, those of other plugins included.

| kind | purpose | components |
| --- | --- | --- |
"""

PYTHON_INDEX = """# Python

`import genkit` has the names for notebooks and other trainers: `run_recipe`, `Recipe`, `load_denoiser`, `component`,
`Denoiser`, `Result`, `PairedLoader`, `Batch` and `Pairs`. A plugin imports from `genkit.plugin` alone, which has every name of these pages that a
plugin needs; contract tests are in `genkit.testing`.

| module | purpose |
| --- | --- |
"""

NOTE = "<!-- Written by docs/generate.py; do not edit. -->\n\n"
HELP = re.compile(r"(<!-- (genkit[^>]*--help) -->\n)```text\n.*?^```$", re.DOTALL | re.MULTILINE)
ROLE = re.compile(r":[a-z:]+:`~?([^`]+)`")
LITERAL = re.compile(r"(?<!`)``([^`]+)``(?!`)")
ANCHOR = re.compile(r"\[([^\]\[]+)\]\(#[\w.]+\)")  # of griffe2md, to places that are on no page
CODE = re.compile(r"<code>(.*?)</code>", re.DOTALL)

MODULES = {
    "genkit.api": "Run recipes and load denoisers from Python",
    "genkit.recipe.in_code": "Recipes in Python",
    "genkit.paired_loader": "Pairs in your own training loop",
    "genkit.denoiser": "Sample with a trained denoiser",
    "genkit.interfaces": "Base classes of all components",
    "genkit.types": "Batches, pairs, noise levels, descriptions of data",
    "genkit.settings": "Settings of a component",
    "genkit.fields": "Settings as a class describes them",
    "genkit.designs": "Components inside of components",
    "genkit.artifacts": "Files that stages write and read",
    "genkit.sample": "Sample as a stage does",
    "genkit.start": "The start of a sampling trajectory",
    "genkit.latents": "Noise by seed",
    "genkit.random": "Random generators derived from a seed",
    "genkit.networks": "Networks of guidance",
    "genkit.costs": "Network calls and seconds",
    "genkit.tensors": "Checks and conversions of tensors",
    "genkit.world": "Processes of a distributed run",
    "genkit.versions": "Versions of installed packages",
    "genkit.parts.frozen": "Frozen networks",
    "genkit.parts.no_stages": "A component outside of a recipe",
    "genkit.parts.precision": "Precision of networks",
    "genkit.plugin.hookspec": "Hooks of a plugin",
    "genkit.plugin.registry": "Registration of components",
    "genkit.errors": "Errors and their codes",
    "genkit.testing": "Contract tests of components",
    "genkit.pickles": "Pickles read without executing them",
}
"""The modules with public names, and what each is for."""

ALSO = {
    "genkit.api": ["Result", "component", "load_denoiser", "run_recipe"],
    "genkit.recipe.in_code": ["Recipe"],
    "genkit.paired_loader": ["PairedLoader"],
    "genkit.denoiser": ["Denoiser"],
    "genkit.plugin.hookspec": ["genkit_after_run", "genkit_commands", "genkit_register"],
    "genkit.plugin.registry": ["Registration"],
    "genkit.testing": list(genkit.testing.__all__),
    "genkit.pickles": list(genkit.pickles.__all__),
}
"""Public names that :mod:`genkit.plugin` does not have."""

# Of a class, the members of its bases first, each in the order of its file, as griffe has them. By
# line numbers, those of several files would be mixed.
order_map[Order.source.value] = lambda _: 0

CONFIG = ConfigDict(
    docstring_style="google",
    docstring_section_style="list",
    filters=["!^_"],
    heading_level=1,
    members_order="source",
    group_by_category=False,
    separate_signature=True,
    show_bases=True,
    show_if_no_docstring=False,
    show_object_full_path=False,
    show_root_full_path=True,
    show_root_members_full_path=False,
    show_signature=True,
    show_signature_annotations=True,
    show_submodules=False,
    signature_crossrefs=False,
    summary=False,
    line_length=90,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where stale")
    check = parser.parse_args().check
    pages = component_pages() | python_pages() | {CLI: with_help((DOCS / CLI).read_text("utf-8"))}
    stale = [
        path
        for path, text in pages.items()
        if not (DOCS / path).exists() or (DOCS / path).read_text("utf-8") != text
    ]
    left = [
        path
        for folder in (COMPONENTS, PYTHON)
        for path in (p.relative_to(DOCS) for p in (DOCS / folder).glob("*.md"))
        if path not in pages
    ]
    if check:
        for path in stale + left:
            print(f"docs/{path} is stale; run: python docs/generate.py")
        sys.exit(1 if stale + left else 0)
    for path in left:
        (DOCS / path).unlink()
    for path in stale:
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(pages[path], encoding="utf-8")
        print(f"docs/{path}")


def with_help(page: str) -> str:
    """Return the page of the command line with the present help of each command."""

    def block(match: re.Match[str]) -> str:
        arguments = match[2].split()[1:]
        result = CliRunner().invoke(
            command_line, arguments, prog_name="genkit", env={"COLUMNS": "90"}
        )
        if result.exit_code:
            raise RuntimeError(f"{match[2]}: {result.output}")
        text = "\n".join(line.rstrip() for line in result.output.strip("\n").splitlines())
        return f"{match[1]}```text\n$ {match[2]}\n{text}\n```"

    return HELP.sub(block, page)


def component_pages() -> dict[Path, str]:
    """Return a page for each kind, and their index.

    Raises:
        RuntimeError: one of genkit's own plugins did not load.
    """
    plugins = load_plugins()
    if failed := [str(s.owner) for s in plugins.failed if s.owner.distribution == OURS]:
        raise RuntimeError(f"these plugins did not load: {', '.join(failed)}")
    registry = plugins.registry
    rows = []
    pages = {}
    for kind in KINDS:
        entries = _entries(registry, kind)
        pages[COMPONENTS / f"{kind}.md"] = NOTE + component_page(registry, kind)
        names = ", ".join(f"[`{e.name}`]({kind}.md#{e.name})" for e in entries)
        rows.append(f"| [{kind}]({kind}.md) | {_first(base_of(kind))} | {names} |")
    pages[COMPONENTS / "index.md"] = NOTE + COMPONENT_INDEX + "\n".join(rows) + "\n"
    return pages


def component_page(registry: Registry, kind: str) -> str:
    """Return the page of a kind."""
    base = base_of(kind)
    module = KINDS[kind].partition(":")[0]
    contract = f"Base class: [`{module}.{base.__name__}`](../python/{module}.md)."
    sections = (_section(registry, entry) for entry in _entries(registry, kind))
    return "\n\n".join([f"# {kind}", _prose(base), contract, *sections]) + "\n"


def python_pages() -> dict[Path, str]:
    """Return a page for each module with public names, and their index.

    Raises:
        RuntimeError: a public name has no page.
    """
    public = {module: names.split() for module, names in PLUGIN_NAMES.items()} | ALSO
    if absent := public.keys() - MODULES.keys():
        raise RuntimeError(f"MODULES of docs/generate.py must have {', '.join(sorted(absent))}")
    # By default each line of a Returns section is a result of its own.
    options = {"returns_multiple_items": False, "returns_named_value": False}
    loader = GriffeLoader(
        docstring_parser=Parser.google, docstring_options=options, search_paths=[str(ROOT)]
    )
    package = loader.load("genkit")
    loader.resolve_aliases()
    pages = {}
    rows = []
    for module, purpose in MODULES.items():
        config = CONFIG | {"members": public[module]}
        text = render_object_docs(package[module.removeprefix("genkit.")], config)
        pages[PYTHON / f"{module}.md"] = NOTE + _plain(text)
        rows.append(f"| [`{module}`]({module}.md) | {purpose} |")
    pages[PYTHON / "index.md"] = NOTE + PYTHON_INDEX + "\n".join(rows) + "\n"
    return pages


def _plain(text: str) -> str:
    """Return docstrings as plain Markdown: no roles of reStructuredText, no HTML, no dead anchors."""
    text = LITERAL.sub(r"`\1`", ROLE.sub(r"`\1`", ANCHOR.sub(r"\1", text)))
    text = CODE.sub(lambda match: f"`{' '.join(match[1].split())}`", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _entries(registry: Registry, kind: str) -> list[Entry]:
    return [entry for entry in registry.entries(kind) if entry.owner.distribution == OURS]


def _section(registry: Registry, entry: Entry) -> str:
    cls = registry.load(entry)
    facts = {"Owner": str(entry.owner), "Class": f"`{entry.target}`", "Source": cls.source}
    listed = "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact)
    return "\n\n".join([f"## {entry.name}", _prose(cls), listed, _table(cls)])


def _table(cls: type) -> str:
    rows = [
        (f"`{name}`", words, f"`{default}`", bounds, meaning)
        for name, words, default, bounds, meaning in settings_of(cls)
    ]
    if not rows:
        return "No settings."
    head = ("setting", "type", "default", "range", "meaning")
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines
    )


def _first(cls: type) -> str:
    return _plain(_prose(cls).partition("\n\n")[0].replace("\n", " ")).strip()


def _prose(cls: type) -> str:
    """Return a docstring up to its first section, such as ``Raises:``."""
    paragraphs = []
    for paragraph in (inspect.getdoc(cls) or "").split("\n\n"):
        if paragraph.partition("\n")[0] in {"Args:", "Attributes:", "Raises:", "Returns:"}:
            break
        paragraphs.append(paragraph)
    return _plain("\n\n".join(paragraphs)).strip()


if __name__ == "__main__":
    main()
