"""Read and parse a recipe, from the path of a file or the name of a shipped recipe."""

from __future__ import annotations

import itertools
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genkit.errors import Code, Key, RecipeError, UsageError
from genkit.recipe.locate import key_lines, long_key
from genkit.recipe.syntax import not_toml, syntax_error
from genkit.settings import near_match, quote, toml_key

MAX_BYTES = 250_000
MAX_DEPTH = 16
MAX_ITEMS = 10_000


@dataclass(frozen=True)
class Source:
    """Text of a recipe.

    Attributes:
        label: path of the file, for messages; empty for a recipe that is written in Python.
        text: content of the file.
        table: parsed text.
        folder: folder of the file, to which paths in the recipe are relative; None for a shipped
            recipe that is read by name, and for text that is not from a file.
    """

    label: str
    text: str
    table: Mapping[str, Any] = field(repr=False)
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str, label: str = "recipe", folder: Path | None = None) -> Source:
        """Parse the text of a recipe.

        Raises:
            RecipeError: the text is not TOML, or its values are nested too deeply.
        """
        return cls(label, text, parse_toml(text, label), folder)


def read_source(recipe: str | Path) -> Source:
    """Read a recipe from a path, or a shipped recipe by its name, such as ``edm_aot_dg``.

    Raises:
        UsageError: the recipe does not exist or cannot be read.
        RecipeError: the text is not TOML; the error contains file, line and column.
    """
    if not isinstance(recipe, (str, Path)):
        raise UsageError(
            "recipe must be the path of a file, the name of a shipped recipe, a Recipe or a dict, "
            f'got {recipe!r:.60}; write a name such as "edm_aot"',
            Code.WRONG_TYPE,
        )
    path = _find(recipe)
    text = _read(path)
    shipped = path in shipped_recipes().values() and path != Path(recipe)
    return Source.parse(text, str(path), None if shipped else path.parent.resolve())


def shipped_recipes() -> dict[str, Path]:
    """Return a map from the name of each shipped recipe, such as ``cifar10/edm``, to its path."""
    package = Path(__file__).parent.parent
    # The recipes are inside of the package in a wheel, and beside it in a checkout.
    folder = next(
        (f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), None
    )
    paths = sorted(folder.rglob("*.toml")) if folder else []
    return {path.relative_to(folder or path).with_suffix("").as_posix(): path for path in paths}


def parse_toml(text: str, label: str) -> dict[str, Any]:
    """Parse TOML of unknown origin in linear time.

    Raises:
        RecipeError: the text is not TOML, or exceeds the limits of recipes.
    """
    # tomllib requires quadratic time and memory for long dotted keys.
    if line := long_key(text, MAX_DEPTH):
        raise syntax_error(label, f"a key has more than {MAX_DEPTH} parts", line=line)
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise syntax_error(label, f"values are nested in more than {MAX_DEPTH} levels") from None
    except ValueError as error:  # TOMLDecodeError, and an integer of thousands of digits
        raise not_toml(text, label, str(error).partition(";")[0]) from None
    if mistake := _shape_mistake(table):
        key, reason = mistake
        line = key_lines(text).get(key[:MAX_DEPTH], 1)
        raise syntax_error(label, reason, key=".".join(map(toml_key, key)), line=line)
    return table


def _find(recipe: str | Path) -> Path:
    path = Path(recipe)
    shipped = shipped_recipes()
    try:
        if path.is_file():
            return path
        name = path.as_posix().removesuffix(".toml")
        if name in shipped:
            return shipped[name]
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"recipe {quote(str(recipe))} cannot be read: {error}") from error
    if exists:
        return path
    if not path.parent.is_dir():
        hint = near_match(name, shipped) or f"there is no folder {path.parent}"
        raise UsageError(f"recipe {recipe} does not exist; {hint}", Code.NOT_FOUND)
    siblings = itertools.islice(path.parent.glob("*.toml"), 1000)
    hint = near_match(str(path), map(str, siblings)) or near_match(name, shipped)
    hint = hint or f"shipped recipes: {', '.join(shipped) or 'none'}"
    raise UsageError(f"recipe {recipe} does not exist; {hint}", Code.NOT_FOUND)


def _read(path: Path) -> str:
    limit = f"a recipe has at most {MAX_BYTES:,} bytes"
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"recipe {path} is a folder; name a file in it", Code.WRONG_KIND)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"recipe {path} is not a regular file; save it to a file first")
        if status.st_size > MAX_BYTES:
            raise UsageError(f"recipe {path} has {status.st_size:,} bytes; {limit}", Code.SYNTAX)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:  # a special file without a size, or a file that is growing
        raise UsageError(f"recipe {path} is too long; {limit}", Code.SYNTAX)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = data[error.start], data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: byte 0x{byte:02x} at offset {error.start} is not UTF-8; "
            "save the file as UTF-8",
            Code.SYNTAX,
        ) from error


def _shape_mistake(table: dict[str, Any]) -> tuple[Key, str] | None:
    """Return key and reason of the first value that is too deep or too long to be decoded."""
    level: list[tuple[Key, Any]] = [((), table)]
    for _ in range(MAX_DEPTH + 1):
        for key, value in level:
            if isinstance(value, list) and len(value) > MAX_ITEMS:
                return key, f"{len(value)} items; a list has at most {MAX_ITEMS}"
        level = [child for key, value in level for child in _children(key, value)]
        if not level:
            return None
    return level[0][0], f"values are nested in more than {MAX_DEPTH} levels"


def _children(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return (((*key, name), child) for name, child in inner if isinstance(child, (dict, list)))


def parse_component(text: str, option: str) -> Mapping[str, Any]:
    """Return the table of a component from a command-line argument.

    Args:
        text: name of the component, or its TOML table.
        option: command-line option, for messages.

    Raises:
        UsageError: the text begins with ``{`` and is not a TOML table.
    """
    if not text.strip().startswith("{"):
        return {"use": text.strip()}
    try:
        parsed = parse_toml(f"value = {text.strip()}", option)
    except RecipeError:
        parsed = {}
    table = parsed.get("value")
    if len(parsed) != 1 or not isinstance(table, dict):
        raise UsageError(
            f"{option} must be a name or a TOML table, got {quote(text)}; write, for example, "
            "'{ use = \"NAME\", setting = 1 }'",
            Code.NOT_A_COMPONENT,
        )
    return table
