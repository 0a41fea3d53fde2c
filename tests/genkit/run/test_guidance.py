"""Guidance in a recipe: checked with the stage that holds it, and bound once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from genkit.artifacts import DenoiserRef
from genkit.designs import problems_of
from genkit.errors import Code, RecipeError
from genkit.interfaces import Guidance, SamplingStage
from genkit.settings import setting
from genkit_dg.guidance import DiscriminatorGuidance
from genkit_metrics.extractors import Pixels

DIGITS = """
[[stage]]
id = "digits"
use = "train"
images = 64
data = { use = "digits" }
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "other"
use = "sample"
denoiser = "digits"
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "discriminator" }]
"""


def guided(tiny):
    return tiny.sample + tiny.guided


def test_a_network_of_another_shape_is_refused_before_anything_runs(tiny):
    tiny.load(guided(tiny))
    with pytest.raises(RecipeError) as caught:
        tiny.load(guided(tiny) + DIGITS)
    (line,) = caught.value.lines
    assert "other.guidance.0.discriminator" in line
    assert "(1, 8, 8)" in line


TWO = """
[[stage]]
id = "other"
use = "train"
images = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "drawn"
use = "sample"
denoiser = "other"
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "discriminator" }]
"""


def test_a_discriminator_of_the_samples_of_another_denoiser_is_refused(tiny):
    tiny.load(guided(tiny))
    with pytest.raises(RecipeError) as caught:
        tiny.load(guided(tiny) + TWO)
    (mistake,) = caught.value.mistakes
    assert mistake.problem.code == Code.WRONG_REFERENCE
    assert "drawn.guidance.0.discriminator" in caught.value.lines[0]


def test_a_conditional_discriminator_of_an_unconditional_denoiser_is_refused(tiny):
    conditional = guided(tiny).replace(
        'fakes = "samples" }\nnetwork = { use = "mlp-discriminator"',
        'fakes = "samples", labels = true }\n'
        'network = { use = "mlp-discriminator", class_conditional = true',
    )
    with pytest.raises(RecipeError) as caught:
        tiny.load(conditional.replace('"moons", items = 200', '"digits"'))
    assert any("guided.guidance.0.discriminator" in line for line in caught.value.lines)


@pytest.mark.parametrize("solver", ["euler", "dpmpp-2m"])
def test_guidance_is_checked_with_the_solver_of_its_stage(tiny, solver):
    table = 'discriminator = "discriminator"'
    text = guided(tiny).replace(table, f"{table}, second_weight = 0.0")
    tiny.load(text)
    with pytest.raises(RecipeError) as caught:
        tiny.load(text, f'guided.solver.use="{solver}"')
    assert "guided.guidance.0.second_weight" in caught.value.lines[0]


def test_guidance_is_bound_once_for_all_batches_of_a_stage(tiny, monkeypatch):
    bound, bind = [], DiscriminatorGuidance.bind

    def counting(self, *given):
        bound.append(self)
        return bind(self, *given)

    monkeypatch.setattr(DiscriminatorGuidance, "bind", counting)
    tiny.run(guided(tiny), "guided.batch_size=2")
    assert len(bound) == 2  # once more for the sample whose arithmetic is counted


def test_an_extractor_is_bound_once_for_all_cells_of_a_sweep(tiny, monkeypatch):
    bound, bind = [], Pixels.bind

    def counting(self, inputs):
        bound.append(self)
        return bind(self, inputs)

    monkeypatch.setattr(Pixels, "bind", counting)
    sweep = tiny.sweep[len(tiny.sample) :].partition("metrics")[0]
    tiny.run(f'{tiny.sample}{sweep}metrics = [{{ use = "frechet" }}]')
    assert len(bound) == 1


def test_a_guidance_of_another_stage_that_draws_samples_is_checked_too(tiny):
    @dataclass(frozen=True, kw_only=True)
    class Drawing(SamplingStage):
        denoiser: DenoiserRef = setting(doc="stage that trained the denoiser")
        guidance: Guidance = setting(doc="correction")

        def drawn_by(self, earlier):
            return self.denoiser

        def draw(self, context):
            raise NotImplementedError

        def run(self, context):
            raise NotImplementedError

    stages = tiny.load(guided(tiny)).stages
    other = tiny.load(tiny.train + DIGITS.partition('[[stage]]\nid = "other"')[0]).stages["digits"]
    guidance = DiscriminatorGuidance(discriminator="discriminator")
    fits = Drawing(denoiser="denoiser", guidance=guidance)
    assert list(problems_of(fits, stages)) == []
    (problem,) = problems_of(replace(fits, denoiser="digits"), {**stages, "digits": other})
    assert problem.key == ("guidance", "discriminator")
