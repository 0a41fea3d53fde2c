"""Plot of the training loss."""

from __future__ import annotations

from collections.abc import Sequence

from genkit.parts.figure import (
    PALETTE,
    figure_with_axes,
    label_ends,
    log_where_wide,
    png_of,
    set_title,
)


def loss_plot(images: Sequence[float], loss: Sequence[float]) -> bytes:
    """Return a PNG of the training loss against the number of images seen.

    Args:
        images: numbers of images seen, ascending.
        loss: mean loss at each of these numbers.
    """
    from matplotlib.ticker import EngFormatter

    figure, (axes,) = figure_with_axes()
    logged = axes.plot(images, loss, color=PALETTE[4], linewidth=0.8, label="logged")
    if reach := len(loss) // 40:
        smooth = _moving_mean(loss, reach)
        logged += axes.plot(images, smooth, color=PALETTE[0], linewidth=2, label="running mean")
    log_where_wide(axes, loss)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("images seen")
    axes.set_ylabel("loss")
    set_title(axes, "Training loss")
    if loss:
        label_ends(axes, logged)
    return png_of(figure)


def _moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Replace each value by the mean of it and up to ``reach`` neighbors on either side."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    last = len(values)
    spans = [(max(0, k - reach), min(last, k + reach + 1)) for k in range(last)]
    return [(sums[right] - sums[left]) / (right - left) for left, right in spans]
