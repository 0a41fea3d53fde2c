"""The sample stage: in which precision its states are, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from genkit.artifacts import Samples, SamplingCosts
from genkit.errors import Code, RecipeError
from genkit.sample import GuidedDenoiser
from genkit.types import SEED_LIMIT
from genkit_stages.train import Train
from raising import raises_code

pytestmark = pytest.mark.slow

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
    assert "samples.schedule.rho: " in str(told.value)


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


def cost(tiny, stage):
    (path,) = tiny.folder.glob(f"*-{stage}/cost.json")
    return SamplingCosts.load(path).rows


def products(tiny, network):
    """Return the operations of one call of an MLP for an item: two for each weight of a matrix."""
    weights = load(tiny.bytes_of(network))
    return sum(2 * values.numel() for values in weights.values() if values.ndim == 2)


def test_the_cost_of_samples_is_written_and_passed_on(tiny):
    scores = """
[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "truncation", count = 8, steps = [2], schedule = { use = "edm", steps = 4 } }]
"""
    tiny.run(tiny.sample + scores)
    (drawn,) = cost(tiny, "samples")
    flops = products(tiny, "denoiser.safetensors")
    assert drawn.calls == {"denoiser": 5}
    assert drawn.nfe_equivalents == 5
    assert drawn.gflop_per_call == pytest.approx(flops / 1e9)
    assert drawn.gflop_per_image == pytest.approx(5 * flops / 1e9)
    assert (drawn.images, drawn.images_timed, drawn.batch_size) == (24, 24, 16)
    assert drawn.seconds_per_image > 0
    assert cost(tiny, "scores") == [drawn]
    assert "gflop" not in (tiny.folder / "results.json").read_text()


def test_guidance_costs_its_calls_and_gradients(tiny):
    tiny.run(tiny.sample + tiny.guided)
    (guided,) = cost(tiny, "guided")
    calls = guided.calls["discriminator"]
    assert guided.calls["denoiser"] == 5
    assert 0 < calls <= 5
    own = 5 * guided.gflop_per_call
    logits = calls * products(tiny, "discriminator.safetensors") / 1e9
    # A gradient costs at most as much again: no weight has one, nor the embedding of sigma.
    assert own + logits < guided.gflop_per_image <= own + 2 * logits
    assert guided.nfe_equivalents == pytest.approx(guided.gflop_per_image / guided.gflop_per_call)


def test_only_the_samples_of_this_process_are_timed(tiny):
    def stop(done, total):
        if (done, total) == (16, 24):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.run(tiny.sample, progress=tiny.recorder(stop))
    tiny.run(tiny.sample)
    (drawn,) = cost(tiny, "samples")
    assert (drawn.images, drawn.images_timed) == (24, 8)


def test_each_combination_of_a_sweep_has_its_cost(tiny):
    tiny.run(tiny.sweep)
    rows = cost(tiny, "sweep")
    assert [row.settings["schedule.steps"] for row in rows] == [2, 2, 3, 3]
    assert [row.nfe_equivalents for row in rows] == [3, 3, 5, 5]
    assert all(row.images == row.images_timed == 8 for row in rows)


def test_deleting_a_cost_runs_nothing_again(tiny):
    tiny.run(tiny.sweep)
    for path in tiny.folder.glob("*/cost.json"):
        path.unlink()
    recorder, _ = tiny.run(tiny.sweep)
    assert recorder.ran == []


ADAPTIVE = 'samples.solver={ use = "adaptive", rtol = 8e-4, atol = 8e-4 }'


def test_the_calls_of_an_adaptive_solver_are_those_of_all_batches(tiny, monkeypatch):
    evaluated, call = [], GuidedDenoiser.__call__

    def counting(self, x, sigma, **settings):
        evaluated.append(len(x))
        return call(self, x, sigma, **settings)

    monkeypatch.setattr(GuidedDenoiser, "__call__", counting)
    tiny.run(tiny.sample, ADAPTIVE, "samples.batch_size=2")
    samples = Samples.load(next(tiny.folder.glob("*-samples/samples.safetensors")))
    of_samples = [size for size in evaluated if size == 2]
    assert samples.nfe == sum(of_samples) / 24
    assert isinstance(samples.nfe, float)
    (drawn,) = cost(tiny, "samples")
    assert drawn.calls == {"denoiser": samples.nfe}
    assert drawn.nfe_equivalents == pytest.approx(samples.nfe)
