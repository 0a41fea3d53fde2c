"""The sections of a report, built from the files that the stages of a run wrote."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from statistics import fmean
from typing import Any

from genkit.artifacts.layout import CHECKPOINT, DURING_TRAINING
from genkit.artifacts.scores import WORDS
from genkit.parts.figure import number, span_wide_range
from genkit.plugin import (
    ClassifierFile,
    DataError,
    DenoiserFile,
    DiscriminatorFile,
    NetworkFile,
    Samples,
    StageResult,
)
from genkit.train.diagnostics import MIN_POOLS, is_skewed
from genkit_report.blocks import (
    Block,
    Listing,
    Picture,
    Section,
    Strip,
    Table,
    sections,
)
from genkit_report.charts import Line, line_chart
from genkit_report.discriminators import discriminators
from genkit_report.pictures import compare_with_data, over_steps
from genkit_report.scores import NFE, curve_blocks, score_blocks
from genkit_report.trajectories import trajectories
from genkit_report.view import Row, View, is_number

_POINTS = 200  # maximum points of a line; in a longer log, consecutive rows are averaged


def report_sections(views: Sequence[View]) -> Sequence[Section]:
    """Return the sections of the report of one run, or of the comparison of several runs."""
    builders = (
        ("Samples", partial(_over, views, samples)),
        ("Scores", partial(score_blocks, views)),
        ("Trajectories", partial(_over, views, trajectories)),
        ("Curves of metrics", partial(curve_blocks, views)),
        ("Training", partial(_over, views, training)),
        ("Pairs", partial(_over, views, pairs)),
        ("Discriminator", partial(_over, views, discriminators)),
        ("Other pictures", partial(_over, views, other_pictures)),
        ("Recipe", partial(recipe_blocks, views)),
        ("Reproduction", partial(_over, views, repeating)),
    )
    return tuple(sections(builders))


# --- samples ----------------------------------------------------------------------------


def samples(view: View) -> Iterator[Block]:
    """Yield pictures of the samples of each stage, next to images of the data."""
    denoisers = set()
    for stage in view.stages():
        drawn = view.read(stage, Samples)
        if drawn is None:
            continue
        title = f"{view.label}, {stage.id}: {len(drawn.batch):,} samples, {number(drawn.nfe)} {NFE}"
        if drawn.batch.data.ndim == 4 and (shown := compare_with_data(view, drawn, title)):
            yield from shown
            if drawn.denoiser not in denoisers:
                yield from over_steps(view, stage, drawn)
            denoisers.add(drawn.denoiser)
        else:
            yield from _pictures(view, stage, ("samples",))


# --- training ---------------------------------------------------------------------------


def training(view: View) -> Iterator[Block]:
    """Yield the loss of each train stage: against training images, and by noise level."""
    for stage in view.stages("train"):
        title = f"{view.label}, {stage.id}"
        if rows := view.rows(stage, "loss", "images"):
            xs, ys = _thinned([row["images"] for row in rows], [row["loss"] for row in rows])
            yield line_chart(
                f"{title}: loss",
                [Line("loss", xs, ys)],
                "training images",
                "loss",
                log_y=span_wide_range(ys),
            )
        if rows := view.rows(stage, "loss_by_sigma", "images"):
            shown = [rows[0], rows[-1]] if len(rows) > 1 else rows
            lines: list[Line] = []
            losses: list[float] = []
            for row in shown:
                by_sigma = {float(k): v for k, v in row["loss_by_sigma"].items()}
                losses += by_sigma.values()
                label = f"after {row['images']:,} images"
                lines.append(Line(label, list(by_sigma), list(by_sigma.values())))
            if bounds := view.rows(stage, "loss_bound_by_sigma"):
                bound = bounds[0]["loss_bound_by_sigma"]
                lines.append(
                    Line("lower bound", [*map(float, bound)], [*bound.values()], dashed=True)
                )
            yield line_chart(
                f"{title}: loss by noise level",
                lines,
                "noise level sigma",
                "loss",
                log_x=True,
                log_y=span_wide_range(losses),
                bottom=min(losses, default=0.0) / 2,  # the lower bound may be 0
            )
        yield from previews(view, stage)


def previews(view: View, stage: StageResult) -> Iterator[Block]:
    """Yield the previews that a train stage kept, in the order of training, beside each other."""
    shown = []
    for path in sorted((stage.folder / DURING_TRAINING).glob("*.png")) if stage.folder else ():
        name, _, images = path.stem.rpartition("-")
        if name == "preview-averaged" and images.isdigit():
            text = f"after {int(images):,} images"
            shown.append(Picture(text, path.read_bytes(), f"Grid of samples {text}.", 220, True))
    if shown:
        yield Strip(f"{view.label}, {stage.id}: samples of the same seeds during training", shown)


def pairs(view: View) -> Iterator[Block]:
    """Yield the effect and the cost of the coupler of each train stage, as a table and a chart."""
    for stage in view.stages("train"):
        pools = view.rows(stage, "pool", "images", "pairs", "cost_before", "cost_after")
        if not pools:
            continue
        before, after = (fmean(row[key] for row in pools) for key in ("cost_before", "cost_after"))
        waited, solved = (
            sum(row[key] for row in pools if is_number(row.get(key)))
            for key in ("seconds_waited", "seconds_solving")
        )
        yield Table(
            f"Pairs of {view.label}, {stage.id}",
            ("", ""),
            [
                ("coupler", _use(stage.settings.get("coupler"))),
                ("logged pools", f"{len(pools):,} of {pools[0]['pairs']:,} pairs each"),
                ("mean distance of image and noise, random pairs", number(before)),
                ("mean distance of image and noise, assigned noise", number(after)),
                ("reduction of the mean distance", f"{1 - after / before:.1%}" if before else ""),
                ("time of coupling, in parallel with training", f"{solved:,.1f} s"),
                ("time in which training waited for pairs", f"{waited:,.1f} s"),
                ("assigned noise", _gaussian(pools, _shape(stage))),
            ],
        )
        xs = [row["images"] for row in pools]
        lines = [
            Line(label, *_thinned(xs, [row[key] for row in pools]))
            for label, key in (("assigned noise", "cost_after"), ("random pairs", "cost_before"))
        ]
        title = f"{view.label}, {stage.id}: distance between image and noise"
        yield line_chart(title, lines, "training images", "mean distance in a pool")


def _shape(stage: StageResult) -> Sequence[int] | None:
    """Return the shape of a training image; None before the first checkpoint of the stage."""
    kinds = (DenoiserFile, DiscriminatorFile, ClassifierFile)
    for name in (CHECKPOINT, *(kind.filename() for kind in kinds)):
        if stage.folder is not None and (path := stage.folder / name).is_file():
            with suppress(DataError):  # damaged, as for a run that was killed
                return NetworkFile.outline(path).spec.shape
    return None


def _gaussian(pools: Sequence[Row], shape: Sequence[int] | None) -> str:
    """Return mean and variance of the assigned noise, and whether it is consistent with N(0, I).

    The test is that of the training stage. It detects gross errors only; ``genkit audit`` tests
    the noise.

    Args:
        pools: rows of pools.
        shape: shape of an image; None if it is unknown, so that the noise is not tested.
    """
    keys = ("noise_worst", "noise_mean", "noise_variance", "noises")
    noises = [row for row in pools if all(is_number(row.get(key)) for key in keys)]
    if not noises:
        return "not measured"
    means = [row["noise_mean"] for row in noises]
    variances = [row["noise_variance"] for row in noises]
    words = f"mean {number(fmean(means))}, variance {number(fmean(variances))}"
    if len(noises) < MIN_POOLS:
        return f"{words}; too few pools for a test"
    if shape is None:
        return f"{words}; not tested, because no checkpoint contains the shape of an image"
    return f"{words}; {'not' if is_skewed(noises, shape) else 'consistent with'} N(0, I)"


# --- the rest ---------------------------------------------------------------------------


def other_pictures(view: View) -> Iterator[Block]:
    """Yield the pictures in the folders of stages that no other section shows."""
    drawn = {"samples", "loss", "loss-by-sigma", "pairs"}
    for stage in view.stages():
        if stage.folder is None:
            continue
        kept = (stage.folder / DURING_TRAINING).glob("*.png")
        elsewhere = drawn | {path.stem.rpartition("-")[0] for path in kept}
        curves = view.scores[stage.id].curves if stage.id in view.scores else {}
        for path in sorted(stage.folder.glob("*.png")):
            shown = path.stem in elsewhere or path.stem in curves or "-against-nfe" in path.stem
            if not shown:
                yield from _pictures(view, stage, (path.stem,))


def recipe_blocks(views: Sequence[View]) -> Iterator[Block]:
    """Yield the recipe of the first run, and the difference of each other recipe from it.

    Differences are those of the recipes that ran, with the values of ``--set``.
    """
    first, *others = views
    yield Listing(f"Recipe of {first.label}, as it was written", first.recipe)
    yield Listing(f"All values of {first.label}, with --set", first.resolved)
    for view in others:
        lines = difflib.unified_diff(
            first.resolved.splitlines(),
            view.resolved.splitlines(),
            first.label,
            view.label,
            "",
            "",
            2,
            "",
        )
        title = f"Changes of the values from {first.label} to {view.label}"
        yield Listing(title, "\n".join(lines) or "no changes")


def repeating(view: View) -> Iterator[Block]:
    """Yield the command of a run, its environment, and the facts on which its scores depend."""
    environment = view.environment
    changed = " ".join(f"--set '{text}'" for text in environment.get("set", ()))
    yield Listing(f"Command for {view.label}", f"genkit run recipe.toml {changed}".strip())
    packages = environment.get("packages")
    rows = [
        (key, str(environment[key]))
        for key in ("hardware", "device", "cores", "threads", "platform", "python")
        if key in environment
    ]
    rows += [(k, str(v)) for k, v in packages.items()] if isinstance(packages, Mapping) else []
    if rows:
        yield Table(f"Environment of {view.label}", ("", ""), rows)
    facts = _hashes(view)
    if facts:
        yield Table(
            f"Facts on which the scores of {view.label} depend",
            ("stage", "score", "fact", "value"),
            facts,
        )


def _hashes(view: View) -> list[tuple[str, str, str, str]]:
    return [
        (stage, score, name, value)
        for stage, scores in view.scores.items()
        for score, facts in scores.facts.items()
        for name, value in facts.items()
        if name != WORDS and not name.startswith("samples.sampler") and len(value) < 200
    ]


def _pictures(view: View, stage: StageResult, names: Sequence[str]) -> Iterator[Block]:
    for name in names:
        path = stage.folder / f"{name}.png" if stage.folder else None
        if f"{name}.png" in stage.damaged:
            continue
        if path and path.is_file():
            title = f"{view.label}, {stage.id}: {name.replace('-', ' ')}"
            text = f"Picture {name} of stage {stage.id}"
            yield Picture(title, path.read_bytes(), text, smooth=True)


def _over(views: Sequence[View], build: Any) -> Iterator[Block]:
    for view in views:
        yield from build(view)


def _use(table: Any) -> str:
    return str(table.get("use", "")) if isinstance(table, Mapping) else str(table or "")


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return at most ``_POINTS`` points: means of consecutive coordinates."""
    size = max(1, math.ceil(len(xs) / _POINTS))
    starts = range(0, len(xs), size)
    return [fmean(xs[k : k + size]) for k in starts], [fmean(ys[k : k + size]) for k in starts]
