"""Print random docstrings, error messages and paragraphs of docs, for a reader who checks their style.

    python benchmarks/draw_text.py --seed 1 --count 50

Each text is printed with its file and line, and is drawn with the same probability. The script also counts words that
the house style replaces with standard terms.
"""

import argparse
import ast
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
READ = ("README.md", "benchmarks", "docs", "genkit", "plugins", "recipes")
REPLACED = {
    "told": r"told",
    "go on": r"(?:go|goes|going|gone|went) on",
    "least": r"(?<!at )(?<!at\n)least",
    "greatest": r"greatest",
    "mend": r"mend(?:s|ed|ing)?",
    "anew": r"anew",
    "stranger": r"strangers?",
}
FEWEST_WORDS = 4  # minimum words of a text; shorter ones, such as a title or a key, are not drawn


class Text(NamedTuple):
    """A text in the repository."""

    kind: str  # "docstring", "message" or "paragraph"
    file: str  # relative to the repository
    line: int
    content: str


def tracked_files(folders: tuple[str, ...] = READ) -> list[str]:
    """Return the text files under version control, except tests and this script."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    this = Path(__file__).relative_to(ROOT).as_posix()
    return sorted(
        file
        for file in listed
        if file.endswith((".py", ".md", ".toml"))
        and "tests" not in Path(file).parts
        and file != this
    )


def docstrings(file: str, tree: ast.Module) -> Iterator[Text]:
    """Yield the docstrings of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            content := ast.get_docstring(node)
        ):
            yield Text("docstring", file, node.body[0].lineno, content)


def messages(file: str, tree: ast.Module) -> Iterator[Text]:
    """Yield the strings inside `...Error(...)`, with `{...}` for values inserted at run time."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")):
            continue
        for argument in node.args:
            match argument:
                case ast.JoinedStr(values=parts):
                    content = "".join(
                        str(part.value)
                        if isinstance(part, ast.Constant)
                        else f"{{{ast.unparse(getattr(part, 'value', part))}}}"
                        for part in parts
                    )
                case ast.Constant(value=str(content)):
                    pass
                case _:
                    continue
            yield Text("message", file, argument.lineno, content)


def paragraphs(file: str, text: str) -> Iterator[Text]:
    """Yield the paragraphs of a Markdown page, without code, tables and headings."""
    text = re.sub(
        r"^```.*?^```",
        lambda code: "\n" * code[0].count("\n"),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    for block in re.finditer(r"(?:^(?!\s*$).+\n?)+", text, flags=re.MULTILINE):
        if not block[0].startswith(("#", "|", "<", "![")):
            yield Text("paragraph", file, text.count("\n", 0, block.start()) + 1, block[0].rstrip())


def texts(file: str) -> Iterator[Text]:
    """Yield the texts of a file that have at least `FEWEST_WORDS` words."""
    content = (ROOT / file).read_text()
    if file.endswith(".py"):
        tree = ast.parse(content)
        contents = [*docstrings(file, tree), *messages(file, tree)]
    else:
        contents = [*paragraphs(file, content)] if file.endswith(".md") else []
    yield from (text for text in contents if len(text.content.split()) >= FEWEST_WORDS)


def count_replaced(files: list[str]) -> Counter[str]:
    """Count the words that the house style replaces, except "at least"."""
    counts = Counter(dict.fromkeys(REPLACED, 0))
    for file in files:
        content = (ROOT / file).read_text()
        for word, pattern in REPLACED.items():
            counts[word] += len(re.findall(rf"\b{pattern}\b", content, flags=re.IGNORECASE))
    return counts


def main() -> None:
    """Draw and print texts, then print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--count", type=int, default=50, help="number of texts")
    parser.add_argument(
        "--under",
        nargs="+",
        default=list(READ),
        help="files or folders, relative to the repository",
    )
    options = parser.parse_args()
    files = tracked_files(tuple(options.under))
    candidates = [text for file in files for text in texts(file)]
    for text in random.Random(options.seed).sample(candidates, min(options.count, len(candidates))):  # noqa: S311
        print(f"{text.file}:{text.line}: {text.kind}\n{text.content}\n")
    counts = count_replaced(files)
    print(
        f"{sum(counts.values())} words to replace: "
        + ", ".join(f"{word} {n}" for word, n in counts.items())
    )


if __name__ == "__main__":
    main()
