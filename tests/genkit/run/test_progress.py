from __future__ import annotations

import contextlib
import io
import sys

import pytest
from rich.console import Console

from genkit.run.progress import Display, Progress, choose_progress, duration


class FakeClock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


def plain_lines(stream):
    return stream.getvalue().splitlines()


def plain(clock):
    stream = io.StringIO()
    return stream, Display(Console(file=stream, force_terminal=False), clock)


def test_loading_the_data_is_no_part_of_the_speed(clock):
    stream, progress = plain(clock)
    progress.begin(1, 1, "denoiser", "train")
    clock.now += 50
    progress.advance(0, 2000, "images")
    clock.now += 10
    progress.advance(1000, 2000, "images")
    assert "100 images/s, 0:10 left" in plain_lines(stream)[-1]


def test_reports_far_apart_give_a_speed(clock):
    stream, progress = plain(clock)
    progress.begin(1, 1, "scores", "sweep")
    for done in range(3):
        progress.advance(done, 4, "cells")
        clock.now += 1000
    assert "2 of 4 cells, 50 %, 0.001 cells/s, 33:20 left" in plain_lines(stream)[-1]


def test_plain_lines_are_ten_seconds_apart(clock):
    stream, progress = plain(clock)
    progress.begin(1, 2, "denoiser", "train")
    for step in range(1, 31):
        clock.now += 1
        progress.advance(step * 100, 100_000, "images", 0.5)
    progress.end()
    lines = plain_lines(stream)
    assert lines[0] == "[1/2] denoiser (train): started"
    assert lines[1] == (
        "[1/2] denoiser: 1,000 of 100,000 images, 1 %, 100 images/s, loss 0.5, 16:30 left"
    )
    assert [line.split(": ")[1].split(" ")[0] for line in lines[1:-1]] == [
        "1,000",
        "2,000",
        "3,000",
    ]
    assert lines[-1] == "[1/2] denoiser: done in 0:30"


def test_a_resumed_stage_estimates_from_its_own_work(clock):
    stream, progress = plain(clock)
    progress.begin(1, 1, "denoiser", "train")
    progress.advance(90_000, 100_000, "images")
    clock.now += 10
    progress.advance(91_000, 100_000, "images")
    assert "91 %, 100 images/s, 1:30 left" in plain_lines(stream)[-1]


def test_a_resumed_stage_shows_where_it_resumes(clock):
    stream, progress = plain(clock)
    progress.begin(1, 1, "denoiser", "train", resumed=True)
    for images in (90_000, 91_000):
        clock.now += 1
        progress.advance(images, 100_000, "images")
    resumptions = [line for line in plain_lines(stream) if "resumed" in line]
    assert resumptions == ["[1/1] denoiser: resumed at 90,000 of 100,000 images"]
    stream, progress = plain(clock)
    progress.begin(1, 1, "denoiser", "train")
    progress.advance(90_000, 100_000, "images")
    assert "resumed" not in stream.getvalue()


def test_every_stage_starts_its_own_count(clock):
    stream, progress = plain(clock)
    progress.begin(1, 2, "a", "sample")
    progress.advance(0, 10, "samples")
    clock.now += 60
    progress.end()
    progress.begin(2, 2, "b", "sample")
    progress.advance(0, 10, "samples")
    clock.now += 10
    progress.advance(5, 10, "samples")
    assert plain_lines(stream)[-1] == "[2/2] b: 5 of 10 samples, 50 %, 0.5 samples/s, 0:10 left"


def test_a_stage_without_units_does_not_divide_by_zero(clock):
    stream, progress = plain(clock)
    progress.begin(1, 1, "scores", "sweep")
    clock.now += 20
    progress.advance(0, 0, "cells")
    assert plain_lines(stream)[-1] == "[1/1] scores: 0 of 0 cells, 0:00 left"


def test_a_finished_stage_and_a_note_are_told_at_once(clock):
    stream, progress = plain(clock)
    progress.skip(1, 5, "denoiser")
    progress.note("checkpoint [latest] is used :smile: " + "x" * 300)
    assert plain_lines(stream) == [
        "[1/5] denoiser: finished before",
        "checkpoint [latest] is used :smile: " + "x" * 300,
    ]


def live(clock, width=120):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    return stream, Display(console, clock)


def test_the_live_line_shows_position_speed_loss_and_rest(clock):
    stream, progress = live(clock)
    with progress:
        progress.begin(1, 2, "denoiser", "train")
        progress.advance(0, 1000, "images")
        clock.now += 5
        progress.advance(500, 1000, "images", 0.25)
        shown = stream.getvalue()
        progress.end()
    assert "500/1,000  50 %  100 images/s  loss 0.25  0:05 left" in shown
    ended = stream.getvalue().removeprefix(shown)
    assert "[1/2] denoiser: done in 0:05" in ended
    assert "500/1,000" not in ended


@pytest.mark.parametrize(
    ("width", "bar", "text"),
    [
        (60, 0, "[1/4] denoiser  50 %  0:05 left  run 25 %, 0:15 left  \n"),
        (80, 10, " [1/4] denoiser  50 %  loss 0.2512  0:05 left  run 25 %, 0:15 left  "),
        (
            120,
            15,
            " [1/4] denoiser  500,000/1,000,000  50 %  100,000 images/s  loss 0.2512  0:05 left  "
            "run 25 %, 0:15 left",
        ),
    ],
)
def test_the_live_line_has_what_matters_most_where_room_is_short(clock, width, bar, text):
    stream, progress = live(clock, width)
    with progress:
        progress.plan([3e6, 1e6, 0, 2e6])
        progress.begin(1, 4, "denoiser", "train")
        progress.advance(0, 1_000_000, "images", 0.3, 0)
        clock.now += 5
        progress.advance(500_000, 1_000_000, "images", 0.2512, 4000)
        shown = stream.getvalue().splitlines()[-1].rpartition("\r")[2]
    assert " ".join(text.split()) in " ".join(shown.split())
    assert shown.count("━") == bar // 2


def test_the_time_left_of_a_run_counts_its_later_stages(clock):
    stream, progress = plain(clock)
    progress.plan([300, 100, 0, 100])
    progress.skip(1, 4, "denoiser")
    progress.begin(2, 4, "samples", "sample")
    progress.advance(0, 50, "samples")
    clock.now += 10
    progress.advance(10, 50, "samples")
    assert plain_lines(stream)[-1].endswith("20 %, 1 samples/s, 0:40 left, run 64 %, 1:30 left")
    clock.now += 40
    progress.advance(50, 50, "samples")  # its end tells the speed as well
    assert plain_lines(stream)[-1].endswith("0:00 left, run 80 %, 0:50 left")
    progress.end()
    progress.begin(3, 4, "scores", "evaluate")
    progress.advance(0, 10, "metrics")
    clock.now += 10
    progress.advance(5, 10, "metrics")  # no work of its own: the newest speed counts for the rest
    assert plain_lines(stream)[-1].endswith("0:10 left, run 80 %, 1:00 left")


def test_a_stage_without_a_speed_says_nothing_of_the_time_of_the_run(clock):
    stream, progress = plain(clock)
    progress.plan([100, 100])
    progress.begin(1, 2, "denoiser", "train")
    clock.now += 10
    progress.advance(10, 10, "images")  # the only report
    assert plain_lines(stream)[-1].endswith("0:00 left, run 50 %")


@pytest.mark.parametrize("work", [[100.0], [100.0, 0.0], [0.0, 0.0]])
def test_a_run_of_one_stage_with_work_has_one_percentage(clock, work):
    stream, progress = plain(clock)
    progress.plan(work)
    progress.begin(1, len(work), "denoiser", "train")
    progress.advance(0, 100, "images")
    clock.now += 10
    progress.advance(50, 100, "images")
    assert "run" not in plain_lines(stream)[-1]


def test_the_live_line_is_not_redrawn_at_every_step(clock):
    stream, progress = live(clock)
    with progress:
        progress.begin(1, 1, "denoiser", "train")
        clock.now += 1
        progress.advance(1, 1000, "images")
        before = len(stream.getvalue())
        for step in range(2, 100):
            progress.advance(step, 1000, "images")
        assert len(stream.getvalue()) == before
        progress.advance(1000, 1000, "images")  # the last state is always drawn
        assert len(stream.getvalue()) > before


def test_the_terminal_is_restored_after_an_error(clock):
    stream, progress = live(clock)
    with contextlib.suppress(RuntimeError), progress:
        progress.begin(1, 1, "denoiser", "train")
        raise RuntimeError
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert stream.getvalue().rfind(show) > stream.getvalue().rfind(hide) >= 0


def test_results_on_stdout_stay_on_stdout(clock, capsys):
    stream, progress = live(clock)
    with progress:
        sys.stdout.write("result\n")
    assert capsys.readouterr().out == "result\n"
    assert "result" not in stream.getvalue()


def test_plain_lines_go_to_stderr_where_it_is_no_terminal(capsys):
    with choose_progress() as progress:
        progress.note("hello")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "hello\n")


def test_silence(capsys):
    with Progress() as progress:
        progress.begin(1, 1, "a", "train")
        progress.advance(1, 2, "images")
        progress.end()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (59.6, "1:00"), (725, "12:05"), (11525, "3:12:05")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
