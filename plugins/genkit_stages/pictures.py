"""Plots of a training run, drawn from the logged rows."""

from __future__ import annotations

from genkit.artifacts import Record
from genkit_stages.loss_by_sigma_plot import loss_by_sigma_plot
from genkit_stages.loss_plot import loss_plot
from genkit_stages.pairs_plot import pairs_plot


def draw_training(record: Record, dimensions: int) -> None:
    """Draw plots of the loss, and a plot of the pairs if the coupler reduced their distance.

    Args:
        record: record of the stage ``train``, which may still be running.
        dimensions: number of elements of an item.
    """
    losses = [row for row in record.rows if "loss" in row]
    if losses:
        images, loss = [row["images"] for row in losses], [row["loss"] for row in losses]
        record.picture("loss", loss_plot(images, loss))
    by_sigma = [row for row in record.rows if "loss_by_sigma" in row]
    if by_sigma:
        bounds = [row for row in record.rows if "loss_bound_by_sigma" in row]
        bound = bounds[0]["loss_bound_by_sigma"] if bounds else {}
        record.picture("loss-by-sigma", loss_by_sigma_plot(by_sigma, bound))
    pools = [row for row in record.rows if "pool" in row]
    if any(row["reduction"] for row in pools):
        record.picture("pairs", pairs_plot(pools, dimensions))
