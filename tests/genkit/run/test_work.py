"""The work of stages, by which the display of a run weighs them."""

from __future__ import annotations

import pytest

from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.run.engine import execute

IDLE = """
from genkit.interfaces import Stage

class Idle(Stage):
    output = None

    def work(self, earlier):
        {body}

    def run(self, context):
        pass
"""


def test_the_work_of_genkits_stages_counts_forward_passes(tiny):
    stages = tiny.load(tiny.sweep).stages
    assert {stage_id: stage.work(stages) for stage_id, stage in stages.items()} == {
        "denoiser": 3 * 256,  # a backward pass is two forward passes
        "samples": 2 * 3 * 24,  # two evaluations in each of 3 steps
        "sweep": 2 * (2 * 2 * 8) + 2 * (2 * 3 * 8),  # 2 and 3 steps, with two values of rho each
    }


class Planned:
    """Notes what the engine plans and warns of."""

    def __init__(self, recorder):
        self.warnings = []
        recorder.warn = self.warnings.append
        recorder.plan = lambda work: setattr(self, "work", work)


@pytest.fixture
def plan(tiny, tmp_path, monkeypatch):
    """Return a function that runs a third-party stage and returns what was planned."""

    def run(body):
        name = f"idle_{tmp_path.name}"  # a module that no other test has imported
        (tmp_path / f"{name}.py").write_text(IDLE.format(body=body))
        monkeypatch.syspath_prepend(tmp_path)
        plugins = load_plugins()
        registration = Registration(Owner("idle", "genkit-idle", "0.3"))
        registration.add("stage", "idle", f"{name}:Idle")
        plugins.registry.accept(registration)
        recipe = load_recipe(
            Source.parse('name = "n"\n[[stage]]\nid = "a"\nuse = "idle"\n'), plugins
        )
        recorder = tiny.recorder()
        planned = Planned(recorder)
        execute(recipe, plugins, tiny.folder, "cpu", recorder)
        assert recorder.ran == ["a"]
        return planned

    return run


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return None", "TypeError"),
        ("return 'many'", "TypeError"),
        ("return -1.0", "-1.0"),
        ("return float('nan')", "nan"),
        ("return float('inf')", "inf"),
        ("return 10**400", "OverflowError"),
        ("return earlier['no such stage'].images", "KeyError"),
        ("raise SystemExit(1)", "SystemExit"),
    ],
)
def test_a_wrong_work_is_a_warning_with_the_plugin(plan, body, told):
    planned = plan(body)
    assert planned.work == [0.0]
    (warning,) = planned.warnings
    assert "genkit-idle" in warning
    assert told in warning


@pytest.mark.parametrize("work", [0, 3, 2.5])
def test_a_number_is_the_work(plan, work):
    planned = plan(f"return {work}")
    assert planned.work == [work]
    assert planned.warnings == []
