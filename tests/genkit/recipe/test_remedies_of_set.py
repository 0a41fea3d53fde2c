"""The remedy of a mistake after ``--set`` is an argument of ``--set`` that works."""

from __future__ import annotations

import shlex

import pytest

from genkit.errors import Code
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import declared_mistakes
from genkit.recipe.source import Source, read_source


@pytest.fixture(scope="module")
def mistakes_of():
    plugins, source = load_plugins(), read_source("smoke")
    return lambda *settings: declared_mistakes(source, plugins, settings)


@pytest.mark.parametrize(
    ("setting", "code", "instead"),
    [
        ("samples.steps=3", Code.UNKNOWN_KEY, "samples.schedule.steps=3"),
        ("denoiser.width=64", Code.UNKNOWN_KEY, "denoiser.network.width=64"),
        (
            "denoiser.lr=0.01",
            Code.RENAMED_KEY,
            'denoiser.optimizer={ use = "adam", learning_rate = 0.01 }',
        ),
        (
            "denoiser.ema_lengths=[0.1]",
            Code.RENAMED_KEY,
            'denoiser.average={ use = "power-ema", lengths = [0.1] }',
        ),
        (
            "denoiser.objective.sigma_distribution=log-normal",
            Code.RENAMED_KEY,
            "denoiser.objective.noise_distribution=log-normal",
        ),
        ("name=5", Code.WRONG_TYPE, 'name="5"'),
    ],
)
def test_a_remedy_works(mistakes_of, setting, code, instead):
    (found,) = mistakes_of(setting)
    assert (found.problem.code, found.override) == (code, setting)
    before, *rest = shlex.split(found.problem.hint)
    assert (before, rest) == ("write", ["--set", instead])
    assert not mistakes_of(instead)


def test_every_setting_of_the_name_is_suggested(mistakes_of):
    (found,) = mistakes_of("samples.sigma_max=80")
    assert "--set samples.schedule.sigma_max=80" in found.problem.hint
    (found,) = mistakes_of("next=b")  # no key takes its place
    assert "--set" not in found.problem.hint


def test_a_setting_in_a_file_is_suggested_as_a_key():
    source = read_source("smoke")
    text = source.text.replace("count = 2048", "count = 2048\nsteps = 3")
    (found,) = declared_mistakes(Source.parse(text), load_plugins())
    assert (found.problem.code, found.line) == (Code.UNKNOWN_KEY, 21)
    assert '"schedule.steps"' in found.problem.hint
