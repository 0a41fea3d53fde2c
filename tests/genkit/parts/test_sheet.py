"""Rows of texts, in a table or, where there is no room, in a list."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from genkit.parts.sheet import print_sheet

CELLS = [
    ("setting", "type", "default", "meaning"),
    ("learning_rate_decay", "an integer", "0", "images from which on the learning rate falls"),
    ("inner", "coupler", '{ use = "partitioned-by-label" }', ""),
    ("path", "a string", "data/a-rather-long-name/of-a-file.npz", "first line\nsecond line"),
]


def printed(width, keys=1, cells=CELLS):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    print_sheet(console, cells, keys)
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_no_word_is_broken_and_none_is_lost(width):
    words = {word for row in CELLS[1:] for text in row for word in text.split()}
    assert words <= set(printed(width).split())


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(map(len, printed(width).splitlines())) <= width


def test_a_wide_terminal_has_a_line_for_each_row():
    first, _, *rows = printed(200).splitlines()
    assert first.split() == list(CELLS[0])
    assert rows[0].split(maxsplit=4)[0] == "learning_rate_decay"
    assert len(rows) == 4  # the last meaning has two lines


def test_a_narrow_terminal_has_a_list_without_empty_texts():
    assert printed(60).splitlines() == [
        "learning_rate_decay",
        "  type     an integer",
        "  default  0",
        "  meaning  images from which on the learning rate falls",
        "inner",
        "  type     coupler",
        '  default  { use = "partitioned-by-label" }',
        "path",
        "  type     a string",
        "  default  data/a-rather-long-name/of-a-file.npz",
        "  meaning  first line",
        "           second line",
    ]
    assert printed(60, keys=2).startswith("learning_rate_decay an integer\n  default  0\n")


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_only_the_last_column_is_wrapped(width):
    folder = "runs/my first run of all"
    cells = [("run", "folder", "meaning"), ("a", folder, "a text of several words " * 4)]
    assert folder in printed(width, cells=cells)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_wide_characters_count_as_two_columns(width):
    cells = [("名前", "meaning"), ("設定", "画像 の 学習率 " * 12)]
    assert max(map(cell_len, printed(width, cells=cells).splitlines())) <= width
