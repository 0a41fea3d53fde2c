"""Pictures of tests that are not about pictures: drawing takes most of the time of a tiny run."""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

from matplotlib.figure import Figure

save = Figure.savefig


def save_coarse(figure, *arguments, **options):
    """Save a figure with its data, but coarsely and without layout, axes and text."""
    figure.set_layout_engine(None)
    for axes in figure.axes:
        axes.set_axis_off()
        for place in ("left", "center", "right"):
            axes.set_title("", loc=place)
        for part in (*axes.texts, axes.get_legend(), *figure.legends):
            if part is not None:
                part.set_visible(False)
    save(figure, *arguments, dpi=20, **options)


@contextmanager
def drawn_coarsely():
    """Draw the pictures of a block coarsely."""
    with mock.patch.object(Figure, "savefig", save_coarse):
        yield
