"""The summary and the sections of a report, from logs that a test writes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from genkit_report.sections import training
from genkit_report.verdict import _subject


@pytest.mark.parametrize(
    ("recipe", "subject"),
    [
        ("# EDM on digits:\n#  4 minutes.\n\n# no part of it", "EDM on digits: 4 minutes."),
        ('name = "a"\n# later', ""),
        ("", ""),
    ],
)
def test_the_comment_of_a_recipe_is_the_subject_of_the_report(recipe, subject):
    assert _subject(recipe) == subject


def test_an_empty_row_of_losses_is_no_error():
    rows = {"loss_by_sigma": [{"images": 64, "loss_by_sigma": {}}]}
    stage = SimpleNamespace(id="denoiser", folder=None)
    view = SimpleNamespace(
        label="run", stages=lambda use: [stage], rows=lambda _, key, *others: rows.get(key, [])
    )
    (chart,) = training(view)
    assert chart.table.rows == []
