"""The page of a report: one HTML file that makes no external requests."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from genkit_report.blocks import Section
from genkit_report.sections import report_sections
from genkit_report.verdict import ending, verdict
from genkit_report.view import View


def render(views: Sequence[View]) -> str:
    """Return the report of one run, or the comparison of several runs, as HTML.

    The same runs give the same bytes.
    """
    environment = Environment(
        loader=PackageLoader("genkit_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = lambda png: base64.b64encode(png).decode("ascii")
    environment.filters["kind"] = lambda block: type(block).__name__
    sections: Sequence[Section] = report_sections(views)
    return environment.get_template("report.html").render(
        title=" and ".join(view.label for view in views),
        runs=[(view.label, view.run.name, [*verdict(view)], ending(view)) for view in views],
        warnings=[
            text if len(views) == 1 else f"{view.label}: {text}"
            for view in views
            for text in (*view.warnings, *view.problems)
        ],
        sections=sections,
    )
