"""What the reference takes from the code: a page for each kind, and the help of the commands."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from typer.testing import CliRunner

from genkit.cli import app as command_line
from genkit.plugin.kinds import KINDS
from genkit.plugin.manager import OURS, load_plugins
from genkit.plugin.registry import Entry, Registry, base_of
from genkit.report.components import settings_of

FOLDER = "reference/components"

INDEX = """# Components

Every component that genkit's own plugins bring, by kind. A recipe names one with
`{ use = "NAME" }`; `genkit show NAME` prints the same tables, those of other plugins included.

```{toctree}
:maxdepth: 1

PAGES
```
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this extension brings."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / FOLDER))
    app.add_directive("genkit-help", Help)
    app.connect("autodoc-process-docstring", whole_sentence, priority=600)  # after napoleon
    return {"parallel_read_safe": True}


def whole_sentence(*event: Any) -> None:
    """Undo that napoleon takes what stands before a colon for the type of an attribute."""
    _, what, _, _, _, lines = event
    types = [line for line in lines if line.startswith(":type: ")]
    if what in {"attribute", "data", "property"} and types:
        first, *rest = [line for line in lines if line not in types]
        lines[:] = [f"{types[0].removeprefix(':type: ')}: {first}", *rest]


class Help(Directive):
    """Shows ``genkit [COMMAND] --help``; the arguments are the command, which may be left out."""

    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        arguments = [*self.arguments, "--help"]
        result = CliRunner().invoke(
            command_line, arguments, prog_name="genkit", env={"COLUMNS": "90"}
        )
        if result.exit_code:
            raise self.error(f"genkit {' '.join(arguments)}: {result.output}")
        text = f"$ genkit {' '.join(arguments)}\n{result.output}"
        return [nodes.literal_block(text, text, language="text")]


def write_pages(folder: Path) -> None:
    """Write a page for each kind, and their index.

    Raises:
        RuntimeError: one of genkit's own plugins did not load.
    """
    plugins = load_plugins()
    if failed := [str(s.owner) for s in plugins.failed if s.owner.distribution == OURS]:
        raise RuntimeError(f"these plugins did not load: {', '.join(failed)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for kind in KINDS:
        (folder / f"{kind}.md").write_text(page(plugins.registry, kind), encoding="utf-8")
    index = INDEX.replace("PAGES", "\n".join(KINDS))
    (folder / "index.md").write_text(index, encoding="utf-8")


def page(registry: Registry, kind: str) -> str:
    """Return the page of a kind."""
    base = base_of(kind)
    entries = [e for e in registry.entries(kind) if e.owner.distribution == OURS]
    contract = f"Contract: {{py:class}}`{base.__module__}.{base.__name__}`."
    parts = [f"# {kind}", _prose(base), contract, *(_section(registry, e) for e in entries)]
    return "\n\n".join(parts) + "\n"


def _section(registry: Registry, entry: Entry) -> str:
    cls = registry.load(entry)
    facts = {
        "Owner": str(entry.owner),
        "Class": f"`{entry.target}`",
        "Source": cls.source,
    }
    parts = [
        f"## {entry.name}",
        _prose(cls),
        "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact),
        _table(cls),
    ]
    return "\n\n".join(parts)


def _table(cls: type) -> str:
    rows = [
        (f"`{name}`", words, f"`{default}`", bounds, meaning)
        for name, words, default, bounds, meaning in settings_of(cls)
    ]
    if not rows:
        return "No settings."
    head = ("setting", "type", "default", "range", "meaning")
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(cls: type) -> str:
    """Return a docstring up to its first section, such as ``Raises:``."""
    paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    kept = []
    for paragraph in paragraphs:
        if paragraph.partition("\n")[0] in {"Args:", "Attributes:", "Raises:", "Returns:"}:
            break
        kept.append(paragraph)
    return "\n\n".join(kept)
