"""Summary of a run at the top of its report: subject, state, duration of training, and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from genkit.artifacts.scores import scores_in, settings_of
from genkit.errors import Code
from genkit.parts.figure import number
from genkit.plugin import SamplingCost, Scores
from genkit_report.scores import NFE, score_text
from genkit_report.view import Row, View


def verdict(view: View) -> Iterator[str]:
    """Yield the sentences of the summary: subject, state, training and scores of each stage."""
    if subject := _subject(view.recipe):
        yield subject
    stages = view.run.stages.values()
    finished = sum(stage.state == "finished" for stage in stages)
    yield f"{view.run.state.capitalize()}: {finished} of {len(stages)} stages are finished."
    for stage in stages:
        if images := stage.images:
            seconds = sum(_seconds(view.rows(stage, "images_per_second", "images")))
            yield f"Stage {stage.id}: {images:,} training images in {_duration(seconds)}."
    # Samples that were drawn before the stage was resumed may have no time.
    if drawn := [cost for cost in _drawn(view) if cost.seconds_per_image is not None]:
        images = sum(cost.images for cost in drawn)
        seconds = sum((c.seconds_per_image or 0.0) * c.images / c.processes for c in drawn)
        yield f"{images:,} samples in {_duration(seconds)}."
    for stage_id, scores in view.scores.items():
        costs = view.costs(view.run.stages[stage_id])
        yield from _scores(stage_id, scores, costs)


def _drawn(view: View) -> Iterator[SamplingCost]:
    """Yield the cost of all samples that the run drew, each once."""
    costs = {stage.id: view.costs(stage) for stage in view.stages()}
    for stage in view.stages():
        # A stage that scores the samples of another stage repeats their cost.
        if costs[stage.id] != costs.get(str(stage.settings.get("samples"))):
            yield from costs[stage.id]


def _subject(recipe: str) -> str:
    """Return the comment at the beginning of a recipe, which describes it; empty without one."""
    lines = takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    return " ".join(line.lstrip("#").strip() for line in lines)


def ending(view: View) -> str:
    """Return why a run is unfinished, with the code of the error; empty for all other runs."""
    if view.run.state != "unfinished":
        return ""
    if view.run.failure is None:
        return "The run did not finish, and no error was recorded."
    stopped = view.run.failure.code == Code.INTERRUPTED
    return f"{'Stopped by the user' if stopped else 'Error'}: {view.run.failure}"


def _scores(stage: str, scores: Scores, costs: Sequence[SamplingCost]) -> Iterator[str]:
    """Yield the scores of a single row, or the best row of a sweep for each score."""
    if len(scores.rows) == 1:
        (row,) = scores.rows
        values = [_value(scores, row, score) for score in scores_in(row)]
        yield f"Stage {stage}{_cost(row, costs)}: {', '.join(values)}."
        return
    for score in scores_in(scores.rows[0]) if scores.rows else ():
        higher = scores.higher_is_better(score)
        ranked = sorted((row[score], k) for k, row in enumerate(scores.rows) if score in row)
        if higher is None or not ranked:
            continue
        _, best = ranked[-1 if higher else 0]
        row = scores.rows[best]
        varied = ", ".join(f"{key} {number(row[key])}" for key in settings_of([row]))
        aligned = [costs[best]] if len(costs) == len(scores.rows) else []
        text = f"best of {len(ranked)} combinations, {varied}{_cost(row, aligned)}"
        yield f"Stage {stage}, {text}: {_value(scores, row, score)}."


def _value(scores: Scores, row: Row, score: str) -> str:
    floor = scores.floor(score)
    against = "" if floor is None else f" (real data: {number(floor)})"
    return f"{score} {score_text(row, score)}{against}"


def _cost(row: Row, costs: Sequence[SamplingCost]) -> str:
    if "nfe" not in row:
        return ""
    text = f" at {number(row['nfe'])} {NFE}"
    if row.get("guidance_nfe") and len(costs) == 1 and costs[0].nfe_equivalents:
        text += f", with guidance as much arithmetic as {number(costs[0].nfe_equivalents)} {NFE}"
    return text


def _seconds(rows: Sequence[Row]) -> Iterator[float]:
    """Yield the training time between consecutive logged rows, in seconds."""
    before = 0
    for row in rows:
        if row["images_per_second"]:  # rounded to 0 for a very slow training
            yield (row["images"] - before) / row["images_per_second"]
        before = row["images"]


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
