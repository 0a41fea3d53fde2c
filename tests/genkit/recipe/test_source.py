from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genkit.errors import Code, RecipeError, UsageError
from genkit.recipe.source import MAX_BYTES, Source, parse_component, read_source, shipped_recipes
from raising import raises_code


def test_reads_a_file_verbatim(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b'# hi\r\nname = "a"\r\n')
    source = read_source(path)
    assert source.text == '# hi\r\nname = "a"\r\n'
    assert source.table == {"name": "a"}
    assert source.label == str(path)


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 1\n")
    assert read_source(path).table == {"seed": 1}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("edm_aot", "edm-aot"),
        ("edm_aot.toml", "edm-aot"),
        ("cifar10/uncond_edm_aot", "cifar10-uncond-edm-aot"),
    ],
)
def test_finds_shipped_recipes_by_name(name: str, found: str) -> None:
    assert read_source(name).table["name"] == found


def test_shipped_recipes_are_files() -> None:
    assert "edm" in shipped_recipes()
    assert all(path.is_file() for path in shipped_recipes().values())


def test_a_folder_of_a_shipped_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_source("edm").table["name"] == "edm"


def test_a_file_goes_before_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edm.toml").write_text('name = "mine"')
    monkeypatch.chdir(tmp_path)
    assert read_source("edm.toml").table["name"] == "mine"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("edm_aott", "edm_aot"),
        ("cifar10/uncond_edm_aott", "cifar10/uncond_edm_aot"),
        ("cifar/uncond_edm_aot", "cifar10/uncond_edm_aot"),
    ],
)
def test_missing_names_a_near_match_among_shipped(wrong: str, near: str) -> None:
    with raises_code(UsageError, Code.NOT_FOUND, f'"{near}"'):
        read_source(wrong)


def test_missing_names_a_near_match_among_siblings(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    with raises_code(UsageError, Code.NOT_FOUND, "mine.toml"):
        read_source(tmp_path / "mime.toml")


def test_missing_folder(tmp_path: Path) -> None:
    with raises_code(UsageError, Code.NOT_FOUND, tmp_path / "no"):
        read_source(tmp_path / "no" / "a.toml")


def test_folder(tmp_path: Path) -> None:
    with raises_code(UsageError, Code.WRONG_KIND, tmp_path):
        read_source(tmp_path)


def test_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with raises_code(UsageError, Code.USAGE, tmp_path / "pipe"):
        read_source(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_names(name: str) -> None:
    with pytest.raises(UsageError):
        read_source(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.touch(mode=0)
    with raises_code(UsageError, Code.USAGE, path):
        read_source(path)


def test_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with path.open("wb") as file:
        file.truncate(10**11)  # sparse: reading it would end the test run
    with raises_code(UsageError, Code.SYNTAX, "100,000,000,000 bytes"):
        read_source(path)


@pytest.mark.skipif(not Path("/proc/kallsyms").exists(), reason="Linux only")
def test_files_that_tell_no_size() -> None:
    with raises_code(UsageError, Code.SYNTAX, "/proc/kallsyms"):
        read_source("/proc/kallsyms")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b'a = 1\nname = "\xff"\n')
    with raises_code(UsageError, Code.SYNTAX, "a.toml:2", "0xff", "14"):
        read_source(path)


@pytest.mark.parametrize(
    ("text", "line", "column", "hint"),
    [
        ("a = 1\nb = euclid\n", 2, 5, "strings need quotes"),
        ("a = 1\na = 2\n", 2, 6, "the key is written twice"),
        ("a = 1\nb = [1,\n", 2, None, "strings need quotes"),
        ("[a]\n[a]\n", 2, 3, "the table is written twice"),
        ("a 1\n", 1, 3, "write key = value"),
        ("a = " + "1" * 5000, None, None, "write a smaller integer"),
        ("a = " + "[" * 5000, None, None, ""),
        ("x = 1\na" + ".a" * 5000 + " = 1", 2, None, ""),
        ("x = 1\na = " + "[" * 30 + "]" * 30, 2, None, ""),
        ("x = 1\na.b = [" + "0," * 10_001 + "]", 2, None, ""),
    ],
)
def test_not_a_recipe(text: str, line: int | None, column: int | None, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Source.parse(text, "f")
    (mistake,) = caught.value.mistakes
    assert mistake.problem.code == Code.SYNTAX
    assert (mistake.file, mistake.line, mistake.column) == ("f", line, column)
    assert mistake.problem.hint.startswith(hint)


def test_long_dotted_key_inside_a_string_is_no_key() -> None:
    text = '"""' + "a." * 100 + '"""'
    assert Source.parse(f"a = {text}").table == {"a": "a." * 100}


def test_a_recipe_may_have_the_greatest_size(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("#" * MAX_BYTES)
    assert read_source(path).table == {}


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys, genkit.recipe.source;"
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_component_is_named_or_written_as_a_table():
    assert parse_component("hungarian", "--coupler") == {"use": "hungarian"}
    table = ' { use = "partitioned", by = ["label"], inner = { use = "pot-exact" } }'
    assert parse_component(table, "--coupler")["inner"] == {"use": "pot-exact"}


@pytest.mark.parametrize("text", ["{", "{ use = x }", "{}\nmore = 1", "{ a = " * 99])
def test_what_is_no_table_is_refused(text):
    with raises_code(UsageError, Code.NOT_A_COMPONENT, "--coupler"):
        parse_component(text, "--coupler")
