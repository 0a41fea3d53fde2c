"""Blocks of a report about discriminators: their scores on held-out items."""

from __future__ import annotations

from collections.abc import Iterator

from genkit.plugin import DiscriminatorFile, StageResult
from genkit_report.blocks import Block, Table, Text
from genkit_report.charts import Line, line_chart
from genkit_report.view import View

_SCORES = ("accuracy", "calibration_error", "cross_entropy")
_LOSS = ("loss",)  # of a discriminator whose objective determines only the gradient of its output
_CHANCE = 0.5  # accuracy of a discriminator that assigns probability 1/2 to every item


def discriminators(view: View) -> Iterator[Block]:
    """Yield the scores of each discriminator on held-out items, as a table and by noise level."""
    for stage in view.stages():
        if stage.folder is None or not (stage.folder / DiscriminatorFile.filename()).is_file():
            continue
        title = f"{view.label}, {stage.id}"
        chosen = view.rows(stage, "chosen")
        scores = _LOSS if chosen and chosen[-1].get("chosen_by") == "loss" else _SCORES
        snapshots = view.rows(stage, *scores)
        levels = [row for row in view.rows(stage, "sigma") if row in snapshots]
        if chosen:
            best = chosen[-1]["chosen"]
            rows = [
                (name, f"{row[name]:.4g}")
                for row in snapshots
                if row.get("images") == best
                for name in scores
            ]
            yield Table(
                f"{title}: the chosen snapshot on held-out items",
                ("", ""),
                [("training images", f"{best:,}"), *rows],
            )
        for name in scores[:2] if levels else ():
            sigmas = [row["sigma"] for row in levels]
            label = name.replace("_", " ")
            lines = [Line(label, sigmas, [row[name] for row in levels], marked=True)]
            if name == "accuracy":
                ends = [min(sigmas), max(sigmas)]
                lines.append(Line("chance level", ends, [_CHANCE] * 2, dashed=True))
            yield line_chart(
                f"{title}: {label} on held-out items by noise level",
                lines,
                "noise level sigma",
                label,
                log_x=True,
            )
        if not levels and not _is_chosen(view, stage):
            yield Text(
                f"{title}: accuracy and calibration on held-out items are not measured; in the "
                "recipe that trains it, add held_out = 0.1 to its data, and a stage that uses "
                "choose-discriminator"
            )


def _is_chosen(view: View, stage: StageResult) -> bool:
    """Return whether a later stage evaluates the snapshots of a discriminator."""
    return any(other.settings.get("discriminator") == stage.id for other in view.stages())
