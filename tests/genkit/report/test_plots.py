from __future__ import annotations

import itertools
import math
import subprocess
import sys

import matplotlib.image
import pytest

from genkit.artifacts import Scores
from genkit.parts.figure import figure_with_axes, spread, use_log
from genkit.report import plots
from genkit.report.plots import curve_plot, score_plot
from genkit.types import Curve


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written, besides their files."""
    figures = []
    render = plots.png_of

    def keep(figure):
        figures.append(figure)
        return render(figure)

    monkeypatch.setattr(plots, "png_of", keep)
    return figures


def sweep_rows():
    return [
        {
            "schedule.steps": steps,
            "schedule.rho": rho,
            "guidance.weight": 2.0,
            "nfe": 2 * steps - 1,
            "guidance_nfe": steps,
            "frechet": rho * math.exp(-steps / 4),
            "other": 1.0,
        }
        for rho in (7.0, 90.0)
        for steps in (14, 5, 7)
    ]


def labels(axes):
    return [text.get_text() for text in axes.texts]


def test_a_score_has_a_line_for_each_combination(tmp_path, drawn):
    facts = {"frechet": {"better": "lower", "words": "Fréchet distance, pixels"}}
    (tmp_path / "score.png").write_bytes(score_plot(Scores(sweep_rows(), facts), "frechet"))
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    # Neither the steps, nor what never changes, nor another score tells lines apart.
    assert list(lines) == ["schedule.rho=7", "schedule.rho=90"] == labels(axes)
    assert list(lines["schedule.rho=7"].get_xdata()) == [9, 13, 27]
    assert lines["schedule.rho=7"].get_ydata()[0] == pytest.approx(7 * math.exp(-5 / 4))
    assert axes.get_yscale() == "log"
    assert "NFE" in axes.get_xlabel()
    assert "guidance" in axes.get_xlabel()
    assert axes.get_ylabel() == "Fréchet distance, pixels (lower is better)"
    assert matplotlib.image.imread(tmp_path / "score.png").shape[1] > 1000


def test_the_score_of_real_data_is_a_line_with_its_value(drawn):
    score_plot(Scores(sweep_rows(), {"frechet": {"measured.floor": "0.25"}}), "frechet")
    (axes,) = drawn[0].axes
    assert "real data: 0.25" in labels(axes)
    assert axes.get_ylim()[0] < 0.25
    assert list(axes.get_lines()[-1].get_ydata()) == [0.25, 0.25]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [((0.4, 1.5), {"0.4", "0.5", "0.7", "1", "1.5"}), ((1, 1e4), {"1", "100", "10,000"})],
)
def test_logarithmic_axes_have_plain_numbers(values, ticks):
    _, (axes,) = figure_with_axes()
    axes.plot(values, values)
    for axis in (axes.xaxis, axes.yaxis):
        use_log(axis, values)
        shown = {text.get_text() for text in axis.get_ticklabels()}
        assert ticks <= shown
        assert not any("10^" in text for text in shown)


def test_one_line_needs_no_label(tmp_path, drawn):
    rows = [{"schedule.steps": s, "nfe": s, "guidance_nfe": 0, "frechet": 1.0 / s} for s in (1, 9)]
    (tmp_path / "score.png").write_bytes(score_plot(Scores(rows), "frechet"))
    (axes,) = drawn[0].axes
    assert labels(axes) == []
    assert "guidance" not in axes.get_xlabel()


def test_rows_without_the_score_and_scores_of_zero_are_no_obstacle(tmp_path, drawn):
    rows = [{"nfe": 1, "frechet": 0.0}, {"nfe": 3, "frechet": 5.0}, {"nfe": 5}]
    (tmp_path / "score.png").write_bytes(score_plot(Scores(rows), "frechet"))
    (axes,) = drawn[0].axes
    assert list(axes.get_lines()[0].get_xdata()) == [1, 3]
    assert axes.get_yscale() == "linear"


def test_many_lines_all_differ(tmp_path, drawn):
    rows = [
        {"guidance.weight": w, "nfe": nfe, "frechet": w + 1.0} for w in range(28) for nfe in (1, 2)
    ]
    (tmp_path / "score.png").write_bytes(score_plot(Scores(rows), "frechet"))
    lines = drawn[0].axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 28


def test_curves_with_the_same_axes_share_them(tmp_path, drawn):
    levels = (0.01, 1.0, 80.0)
    curves = {
        "edm": Curve(levels, (1.0, 2.0, 3.0), "sigma", "curvature", log_x=True),
        "aot": Curve(levels, (1.0, 1.5, 2.0), "sigma", "curvature", log_x=True),
        "truncation": Curve((5.0, 9.0), (3.0, 1.0), "steps", "error", log_y=True),
    }
    (tmp_path / "curves.png").write_bytes(curve_plot(curves))
    both, alone = drawn[0].axes
    assert [line.get_label() for line in both.get_lines()] == ["edm", "aot"]
    assert labels(both) == ["aot", "edm"]  # from the lowest to the highest
    assert (both.get_xscale(), both.get_yscale()) == ("log", "linear")
    assert (both.get_xlabel(), both.get_ylabel()) == ("sigma", "curvature")
    assert (alone.get_xscale(), alone.get_yscale()) == ("linear", "log")
    assert labels(alone) == []


@pytest.mark.parametrize(("log", "floor"), [(False, 0.0), (True, 0.05)])
def test_a_band_of_what_is_never_negative_ends_at_zero(drawn, log, floor):
    curve = Curve((1.0, 2.0), (3.0, 0.1), "x", "y", log_y=log, spread=(1.0, 0.5))
    curve_plot({"name": curve})
    (axes,) = drawn[0].axes
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert corners == {(1, 2), (1, 4), (2, floor), (2, 0.6)}
    assert axes.get_ylim()[0] > floor / 2 - 0.5


def test_a_band_of_signed_values_has_its_whole_width(drawn):
    curve_plot({"name": Curve((1.0, 2.0), (0.5, -1.0), "x", "y", spread=(1.0, 1.0))})
    (band,) = drawn[0].axes[0].collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert corners == {(1, -0.5), (1, 1.5), (2, -2), (2, 0)}


@pytest.mark.parametrize(("count", "marker"), [(3, "o"), (64, "")])
def test_each_of_a_few_positions_has_a_mark_and_a_tick(drawn, count, marker):
    x = tuple(float(k) for k in range(5, 5 + count))
    curve_plot({"name": Curve(x, x, "steps", "error", log_x=True)})
    (axes,) = drawn[0].axes
    assert axes.get_lines()[0].get_marker() == marker
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert (ticks == ["5", "6", "7"]) == bool(marker)


def test_labels_are_moved_apart_and_stay_in_order():
    assert spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    moved = spread([0.0, 0.01, 0.02, 0.1, 0.8], 0.05)
    gaps = [b - a for a, b in itertools.pairwise(moved)]
    assert min(gaps) >= 0.05 - 1e-12
    assert moved[-1] == 0.8


def test_no_global_state_of_matplotlib_is_used():
    code = "import sys, genkit.report.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
