"""Charts of a report: their data, and what must be visible in them."""

from __future__ import annotations

import re

from genkit_report.blocks import Table
from genkit_report.charts import Line, line_chart


def test_a_chart_has_the_numbers_that_it_draws():
    line = Line("loss", [1, 2, 3], [4.0, 5.0, 6.0], [0.5, 0.5, 0.25])
    chart = line_chart("Loss", [line], "images", "value")
    assert chart.table == Table(
        "Data",
        ("line", "images", "value"),
        [
            ("loss", "1", "4 ± 0.5"),
            ("loss", "2", "5 ± 0.5"),
            ("loss", "3", "6 ± 0.25"),
        ],
    )
    assert "currentColor" in chart.svg
    assert "<text" in chart.svg


def test_a_single_point_is_visible():
    def has_marker(count):
        line = Line("loss", range(1, count + 1), [1.0] * count)
        svg = line_chart("Loss", [line], "images", "loss").svg
        return re.search(r"<use [^>]*fill: var\(--c0\)", svg) is not None

    assert has_marker(1)
    assert not has_marker(2)


def test_a_band_that_reaches_below_0_is_drawn_on_a_logarithmic_axis():
    line = Line("curvature", [1, 2], [4.0, 0.5], [0.5, 0.75])
    svg = line_chart("Curvature", [line], "sigma", "value", log_y=True).svg
    band = re.search(r'PolyCollection_1">.*? d="(.*?)"', svg, re.S)[1]
    heights = [-float(y) for y in re.findall(r"(?:M|L) \S+ (\S+)", band)]
    assert len(heights) >= 4
    assert all(0 <= height <= 400 for height in heights)


def test_the_legend_has_the_order_of_the_lines():
    lines = [
        Line("first", [1, 2], [3.0, 4.0], marked=True),
        Line("second", [1, 2], [2.0, 1.0], [0.1, 0.1], marked=True),
        Line("bound", [1, 2], [0.5, 0.5], dashed=True),
    ]
    svg = line_chart("Scores", lines, "cost", "score").svg
    places = [svg.index(f">{line.label}<") for line in lines]
    assert places == sorted(places)
    assert "stroke-dasharray" in svg


def test_each_of_a_few_positions_has_a_tick_on_a_logarithmic_axis():
    line = Line("error", [5, 9, 18], [3.0, 1.0, 0.2], marked=True)
    svg = line_chart("Truncation", [line], "steps", "error", log_x=True).svg
    assert all(f">{steps}</text>" in svg for steps in (5, 9, 18))
