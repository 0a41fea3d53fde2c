"""Read the examples of the page "Extend genkit", from which ``genkit new plugin`` writes packages.

The page is the only source of the examples: the tests execute it, and check each component. An
example may use definitions of other sections, such as a base class. They are copied with it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genkit.errors import Code, UsageError

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^###? ", re.MULTILINE)
_WIDTH = 88  # of lines with imports, the default of formatters


@dataclass(frozen=True)
class Example:
    """Example of a component.

    Attributes:
        kind: kind of the component.
        name: name in recipes.
        cls: name of its class.
        purpose: paragraph in Markdown that begins with the purpose of the kind.
        module: code of the class and of everything that it uses, without imports.
        test: code of the contract test, without imports.
        recipe: part of a recipe that uses the component, as TOML.
    """

    kind: str
    name: str
    cls: str
    purpose: str
    module: str
    test: str
    recipe: str


class Examples:
    """The examples of a page.

    Args:
        text: text of the page. Its first Python block has the imports of all examples.

    Raises:
        UsageError: the page does not have this form.
    """

    def __init__(self, text: str) -> None:
        self._sections = {s.partition("\n")[0]: s for s in _SECTION.split(text)[1:]}
        imports, *blocks = _PYTHON.findall(text)
        self._imports = ast.parse(imports).body
        hook = next(block for block in blocks if "genkit_register" in block)
        loop = next(node for node in ast.walk(ast.parse(hook)) if isinstance(node, ast.For))
        self._registered = {kind: rest for kind, *rest in ast.literal_eval(loop.iter)}
        self._code: dict[str, str] = {}
        self._uses: dict[str, set[str]] = {}
        for block in blocks:
            for name, code, node in () if block == hook else _definitions(block):
                self._code[name] = code
                self._uses[name] = _names(node)

    def example(self, kind: str) -> Example:
        """Return the example of a kind."""
        section = self._sections[kind]
        name, cls = self._registered[kind]
        test = f"test_{kind.replace('-', '_')}"
        own = self._needed([cls])
        beside = [n for n in self._needed([test]) if n not in own]
        return Example(
            kind=kind,
            name=name,
            cls=cls,
            purpose=section.partition("\n\n")[2].partition("\n\n")[0],
            module=self._joined(own),
            test=self._joined(beside),
            recipe="\n".join(_TOML.findall(section)),
        )

    def imports(self, code: str, own: str = "") -> str:
        """Return the imports that code needs.

        Args:
            code: code without imports.
            own: line that imports from the package of the code; empty for none.
        """
        used = _names(ast.parse(code))
        whole, parts = [], []
        for node in self._imports:
            if isinstance(node, ast.Import):
                whole += [f"import {a.name}" for a in node.names if a.name in used]
            elif isinstance(node, ast.ImportFrom):
                names = [a.name for a in node.names if a.name in used]
                parts += [_from(node.module or "", names)] if names else []
        groups = []
        for standard in (True, False):
            lines = [
                line
                for line in [*sorted(whole), *sorted(parts)]
                if (line.split()[1].partition(".")[0] in sys.stdlib_module_names) is standard
            ]
            groups += ["\n".join(lines)] if lines else []
        return "\n\n".join([*groups, *([own] if own else [])])

    def _needed(self, wanted: Iterable[str]) -> list[str]:
        """Return names with all definitions that they use, in the order of the page."""
        found: set[str] = set()
        pending = list(wanted)
        while pending:
            name = pending.pop()
            if name in self._code and name not in found:
                found.add(name)
                pending += self._uses[name]
        return [name for name in self._code if name in found]

    def _joined(self, names: Iterable[str]) -> str:
        return "\n\n\n".join(self._code[name] for name in names) + "\n"


def read_examples() -> Examples:
    """Read the page of this version of genkit.

    Raises:
        UsageError: the installation lacks the page.
    """
    package = Path(__file__).parent
    # The page is inside of the package in a wheel, and in the folder docs in a checkout.
    places = package / "extend.md", package.parents[1] / "docs" / "how-to" / "extend.md"
    page = next((path for path in places if path.is_file()), None)
    if page is None:
        raise UsageError(
            f"{places[0]} must exist, got none; install genkit-diffusion again", Code.NOT_FOUND
        )
    return Examples(page.read_text(encoding="utf-8"))


def _definitions(block: str) -> Iterable[tuple[str, str, ast.stmt]]:
    """Yield name, code and syntax tree of each definition at the top level of a block."""
    lines = block.splitlines()
    for node in ast.parse(block).body:
        first = node.lineno
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                first = min([first, *(part.lineno for part in node.decorator_list)])
            case ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case _:
                continue
        yield name, "\n".join(lines[first - 1 : node.end_lineno]), node


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _from(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])
