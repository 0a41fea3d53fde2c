"""Write a Python package with a plugin: one component, its contract test and a page for users."""

from __future__ import annotations

import builtins
import keyword
import re
import shutil
from importlib.metadata import distributions
from pathlib import Path

from genkit.errors import Code, UsageError
from genkit.plugin.kinds import KINDS
from genkit.plugin.registry import Registry
from genkit.settings import near_match
from genkit_author.examples import Example, Examples

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{package}"
version = "0.1.0"
description = "The {kind} {name} for genkit"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["genkit-diffusion"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points."genkit.plugins"]
{name} = "{folder}"
"""

_HOOK = """\
from genkit.plugin import hookimpl


@hookimpl
def genkit_register(registry):
    registry.add(
        "{kind}",
        "{name}",
        "{folder}.{module}:{cls}",
    )
"""

_README = """\
# {package}

A plugin of genkit with the {kind} `{name}`. It begins as a copy of an example: replace the code in
`{folder}/{module}.py`. The contract test in `tests` checks every law of this kind.

```bash
pip install -e ".[test]"
pytest
genkit show {name} --kind {kind}
```

{purpose}

In a recipe:

```toml
{recipe}```
"""


def check_kind(kind: str) -> None:
    """Raise UsageError unless ``kind`` is a kind of component."""
    if kind not in KINDS:
        hint = near_match(kind, KINDS) or f"write one of {', '.join(KINDS)}"
        raise UsageError(
            f'KIND must be a kind of component, got "{kind}"; {hint}', Code.UNKNOWN_CHOICE
        )


def check_name(kind: str, name: str, registry: Registry) -> None:
    """Raise UsageError unless a new plugin can register a component under a name.

    Args:
        kind: kind of the component.
        name: name of the component, of which the name of the package is derived.
        registry: registry with the components and packages of the installed plugins.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 60:
        raise UsageError(
            f'NAME must consist of words, got "{name}"; write at most 60 lower-case letters, '
            "digits and single hyphens, with a letter first",
            Code.INVALID_NAME,
        )
    if owner := next((e.owner for e in registry.entries(kind) if e.name == name), None):
        raise UsageError(
            f'NAME must not be registered, but {kind} "{name}" belongs to {owner}; '
            "write another name",
            Code.DUPLICATE,
        )
    if package_name(name) in (other.metadata["Name"] for other in distributions()):
        raise UsageError(
            f"NAME must give a new package, but {package_name(name)} is installed; write another "
            "name",
            Code.DUPLICATE,
        )
    if owners := registry.packages.get(_folder(name)):
        belongs = ", ".join(sorted(map(str, owners)))
        raise UsageError(
            f"NAME must give a new package, but {_folder(name)} belongs to {belongs}; "
            "write another name",
            Code.DUPLICATE,
        )


def package_files(kind: str, name: str, examples: Examples) -> dict[str, str]:
    """Return the content of each file of a package, by its path in the package.

    Args:
        kind: kind of the component.
        name: valid name of the component.
        examples: examples that the package is written from.
    """
    example = examples.example(kind)
    names = {
        "kind": kind,
        "name": name,
        "package": package_name(name),
        "folder": _folder(name),
        "module": kind.replace("-", "_"),
        "cls": _class_name(example, name),
        "purpose": _renamed(example.purpose, example, name),
        "recipe": _renamed(example.recipe, example, name),
    }
    module, test = (
        re.sub(rf"(?<![\w.]){example.cls}\b", names["cls"], _renamed(code, example, name))
        for code in (example.module, example.test)
    )
    own = f"from {names['folder']}.{names['module']} import {names['cls']}"
    return {
        "pyproject.toml": _PROJECT.format(**names),
        "README.md": _README.format(**names),
        f"{names['folder']}/__init__.py": _HOOK.format(**names),
        f"{names['folder']}/{names['module']}.py": f"{examples.imports(module)}\n\n\n{module}",
        f"tests/test_{name.replace('-', '_')}.py": f"{examples.imports(test, own)}\n\n\n{test}",
    }


def write_package(folder: Path, files: dict[str, str]) -> None:
    """Write files into a new folder. If one cannot be written, the folder is removed again.

    Raises:
        UsageError: the folder exists.
        OSError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(
            f"--out must be a new folder, got {folder}; write another name", Code.OCCUPIED
        ) from error
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def package_name(name: str) -> str:
    """Return the name of the Python package of a component, ``genkit-NAME``."""
    return f"genkit-{name}"


def _folder(name: str) -> str:
    return f"genkit_{name.replace('-', '_')}"


def _class_name(example: Example, name: str) -> str:
    """Return the name of the class, which differs from every other name that the code may use."""
    cls = "".join(word.capitalize() for word in name.split("-"))
    words = set(re.findall(r"\w+", f"{example.module} {example.test}")) - {example.cls}
    if cls in words or keyword.iskeyword(cls) or hasattr(builtins, cls):
        cls += "".join(word.capitalize() for word in example.kind.split("-"))
    return cls


def _renamed(text: str, example: Example, name: str) -> str:
    """Return text with the new name in place of the example's, in strings and command lines."""
    return re.sub(rf'("|--as ){re.escape(example.name)}\b', rf"\g<1>{name}", text)
