"""The picture of a score against the cost: which points are on which line, and with which bars."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from genkit_compare.comparison import make_tables
from genkit_compare.plot import score_plot
from genkit_compare.selection import group_stages, select

FACTS = {"extractor": "pixels"}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, instead of their bytes."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def draw(*names, score="fid"):
        tables, _ = make_tables(group_stages(select([Path(name) for name in names])))
        score_plot(tables[0], score, "png")
        return figures[-1]

    return draw


def lines(figure):
    """Return the points of each line by its label."""
    containers = figure.axes[0].containers
    return {c.get_label(): c.lines[0].get_xydata().tolist() for c in containers}


def sweep(make, costs, values, **columns):
    return [
        {"schedule.steps": k, **columns, **make.row(nfe, fid=value)}
        for k, (nfe, value) in enumerate(zip(costs, values, strict=True))
    ]


def test_a_run_is_one_line_in_the_order_of_its_cost(make, drawn):
    make.run("a", (sweep(make, [27, 9], [1.5, 40.0]), {"fid": FACTS}))
    make.run("b", (sweep(make, [9, 27], [30.0, 1.0]), {"fid": FACTS}))
    figure = drawn("a", "b")
    assert lines(figure) == {"a": [[9, 40], [27, 1.5]], "b": [[9, 30], [27, 1]]}
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert "(NFE)" in axes.get_xlabel()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["9", "27"]


def test_bars_are_the_spread(make, drawn):
    rows = [make.row(9, fid=2.0, fid_std=0.5, fid_min=1.5)]
    make.run("a", (rows, {"fid": FACTS}))
    make.run("b", ([make.row(9, fid=3.0)], {"fid": FACTS}))
    figure = drawn("a", "b")
    bars = {c.get_label(): c.has_yerr for c in figure.axes[0].containers}
    assert bars == {"a": True, "b": False}
    (segment,) = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert segment[:, 1].tolist() == [1.5, 2.5]


def test_another_setting_that_a_sweep_varies_is_a_line_of_its_own(make, drawn):
    guided = [
        row for weight in (0.0, 1.0) for row in sweep(make, [9, 27], [3.0, 2.0], weight=weight)
    ]
    make.run("a", (guided, {"fid": FACTS}))
    make.run("b", (sweep(make, [9, 27], [3.0, 2.0], weight=1.0), {"fid": FACTS}))
    figure = drawn("a", "b")
    assert list(lines(figure)) == ["a: weight 0", "a: weight 1", "b"]
    colors = [container.lines[0].get_color() for container in figure.axes[0].containers]
    assert colors[0] == colors[1] != colors[2]


@pytest.mark.parametrize(
    ("changed", "expected", "words"),
    [
        ({}, 9.0, "NFE-equivalents"),
        ({"nfe_equivalents": None}, 27, "(NFE)"),
        ({"gflop_per_call": 4.0}, 18.0, "GFLOP"),
        (None, 27, "(NFE)"),
    ],
)
def test_the_cost_is_that_of_all_networks_where_every_run_has_it(
    make, drawn, changed, expected, words
):
    scores = [make.row(27, fid=1.0)], {"fid": FACTS}
    make.run("a", scores, cost=[make.cost()])
    make.run("b", scores, cost=None if changed is None else [make.cost(**changed)])
    figure = drawn("a", "b")
    assert lines(figure)["a"][0][0] == expected
    assert words in figure.axes[0].get_xlabel()


def test_the_legend_lies_outside_of_the_axes(make, drawn):
    for name in ("a-long-name-of-a-run", "another-long-name-of-a-run", "third"):
        make.run(name, (sweep(make, [9, 500], [40.0, 1.5]), {"fid": FACTS}))
    figure = drawn("a-long-name-of-a-run", "another-long-name-of-a-run", "third")
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    axes = figure.axes[0].get_tightbbox()
    assert not legend.overlaps(axes)
    assert figure.axes[0].get_xscale() == "log"


def test_the_command_draws_the_stages_with_most_rows(genkit_, runs, tmp_path):
    for name in ("fid.png", "fid.svg"):
        code, out, _ = genkit_("compare", "runs/edm", "runs/edm-aot", "--plot", name)
        assert code == 0
        assert "Stage sweep" in out
    image = Image.open(io.BytesIO((tmp_path / "fid.png").read_bytes()))
    assert 950 <= image.width <= 1050
    text = (tmp_path / "fid.svg").read_text()
    assert text.startswith("<?xml")
    assert "NFE" in text or "glyph" in text


def test_a_score_without_a_cost_is_not_plotted(genkit_, make):
    for name in ("a", "b"):
        make.run(name, ([{"nfe": 9, "guidance_nfe": 0, "fid": 1.0}], {"fid": FACTS}))
        file = Path(name) / "02-scores" / "scores.json"
        text = file.read_text()
        file.write_text(text.replace('"nfe": 9, ', " " * 10))
        assert len(file.read_text()) == len(text)
    code, _, err = genkit_("compare", "a", "b", "--plot", "fid.png")
    assert code == 2
    assert "--plot requires" in err
