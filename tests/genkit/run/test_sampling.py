"""The sample stage: in which precision its states are, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from genkit.errors import Code, RecipeError
from genkit.types import SEED_LIMIT
from genkit_stages.train import Train
from raising import raises_code

VE = 'denoiser.network.preconditioner={ use = "ve" }'


def drawn(tiny, *overrides):
    tiny.run(tiny.sample, *overrides)
    return load(tiny.bytes_of("samples.safetensors"))["samples"]


def test_float32_states_change_samples_by_rounding(tiny):
    wide, narrow = drawn(tiny), drawn(tiny, 'samples.state_precision="float32"')
    assert not torch.equal(wide, narrow)
    torch.testing.assert_close(wide, narrow, rtol=1e-3, atol=1e-3)


def test_the_precision_of_the_network_changes_samples_by_rounding(tiny):
    exact, tf32 = drawn(tiny), drawn(tiny, 'samples.precision="tf32"')
    assert torch.equal(exact, tf32)  # on a CPU
    rounded = drawn(tiny, 'samples.precision="bfloat16"')
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0.1, atol=0.1)


def test_the_class_of_a_sample_follows_from_its_seed(tiny):
    conditional = ("denoiser.network.class_conditional=true", "denoiser.coupler.by=['label']")
    tiny.run(
        tiny.sample.replace("[[stage]]", '[[stage]]\ncoupler = { use = "partitioned" }', 1),
        *conditional,
        "samples.first_seed=5",
        "samples.count=7",
        "samples.batch_size=3",
    )
    found = load(tiny.bytes_of("samples.safetensors"))
    assert found["labels"].tolist() == [seed % 2 for seed in range(5, 12)]


def test_a_schedule_outside_of_what_the_network_knows_is_refused(tiny):
    with raises_code(RecipeError, Code.CONFLICT, "samples.schedule", "100"):
        tiny.load(
            tiny.sample, VE, "samples.schedule={ use = 'edm', sigma_min = 2e2, sigma_max=3e2}"
        )


def test_a_schedule_that_is_wrong_by_itself_is_told_once(tiny):
    with pytest.raises(RecipeError) as told:
        tiny.load(tiny.sample, VE, "samples.schedule.rho=1e-9")
    assert "1 mistake in the recipe" in str(told.value)
    assert "samples.schedule.rho: the noise levels must fall" in str(told.value)


def test_a_stage_that_does_not_describe_its_denoiser_is_refused_and_seeds_are_checked(
    tiny, monkeypatch
):
    monkeypatch.setattr(Train, "design", lambda self, earlier: None)
    with pytest.raises(RecipeError) as caught:
        tiny.load(tiny.sample, f"samples.first_seed={SEED_LIMIT - 1}")
    found = {(mistake.key, mistake.problem.code) for mistake in caught.value.mistakes}
    assert found == {
        ("samples.first_seed", Code.OUT_OF_RANGE),
        ("samples.denoiser", Code.PLUGIN),
    }
