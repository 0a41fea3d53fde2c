"""Tables and pictures in HTML, for notebooks."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence


def html_table(lines: Sequence[Sequence[object]], head: Sequence[object] = ()) -> str:
    """Return a table, with a row of headings if there are any; floats have four digits."""
    rows = [_row("th", head)] if head else []
    return f"<table>{''.join([*rows, *(_row('td', line) for line in lines)])}</table>"


def html_picture(png: bytes, alt: str) -> str:
    """Return a picture that contains its PNG file; ``alt`` describes it."""
    content = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{content}" width="400"/>'


def _row(cell: str, values: Sequence[object]) -> str:
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    cells = "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in texts)
    return f"<tr>{cells}</tr>"
