"""The user's path on a GPU; skipped where there is none.

``GENKIT_NOX_CUDA=1 nox -s tests-3.11 -- tests/test_gpu.py`` runs these alone.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

import genkit
from genkit.interfaces import Trained
from genkit.networks import bind_guidance
from genkit.parts.precision import multiplying_in
from genkit.plugin.manager import load_plugins
from genkit.random import derive_seed, seeded
from genkit.recipe.decode import component
from genkit.sample import GuidedDenoiser, trajectory
from genkit.tensors import pairwise_cost
from genkit.train.trainer import Compute, Trainer
from genkit.types import DataSpec, Draws
from genkit.world import SINGLE_PROCESS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

SMALL = {
    "denoiser.images": 4096,
    "discriminator.images": 2048,
    "fakes.count": 256,
    "samples.count": 256,
    "sweep.count": 128,
}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_the_whole_method_runs_on_the_gpu(tmp_path, precision):
    settings = {**SMALL, "denoiser.precision": precision, "discriminator.channels_last": True}
    result = genkit.run_recipe("edm_aot_dg", out=tmp_path / "run", settings=settings, device="cuda")
    assert all(row["frechet_classifier"] >= 0 for row in result.scores["sweep"])


def test_cpu_and_gpu_sample_alike(tmp_path):
    result = genkit.run_recipe(
        "smoke", out=tmp_path / "run", settings={"denoiser.images": 20_000}, device="cpu"
    )
    on_cpu, on_gpu = (result.denoiser(device=d).sample(64) for d in ("cpu", "cuda"))
    torch.testing.assert_close(on_cpu, on_gpu, atol=1e-3, rtol=1e-3)


def test_the_draws_of_edm_come_from_the_generator_of_the_gpu():
    shape, seeds, device = (3, 8, 8), [3, 50_000], torch.device("cuda")
    draws = genkit.component("latents", "edm").draw(shape, seeds, 10, device, 0)
    noise = draws.randn_like(draws.latents.double())
    for k, seed in enumerate(seeds):
        g = torch.Generator("cuda").manual_seed(seed)
        assert torch.equal(draws.latents[k], torch.randn(shape, generator=g, device="cuda"))
        assert draws.labels[k] == torch.randint(10, (), generator=g, device="cuda")
        expected = torch.randn(shape, generator=g, device="cuda", dtype=torch.float64)
        assert torch.equal(noise[k], expected)


@pytest.mark.parametrize("name", ["hungarian", "sinkhorn", "partitioned", "pot-exact"])
@pytest.mark.parametrize("size", [16, 700])
def test_couplers_pair_on_the_gpu_as_well_as_on_the_cpu(name, size):
    g = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 32, 32, generator=g) * 2 - 1
    noise = torch.randn(images.shape, generator=g)
    labels = torch.randint(3, (size,), generator=g)
    coupler = genkit.component("coupler", name)

    def total(device):
        batch = genkit.Batch(images.to(device), labels.to(device))
        pairs = coupler.pair(batch, noise.to(device), torch.Generator().manual_seed(1))
        assert pairs.noise.device.type == "cpu"
        return float((images[pairs.data] - noise[pairs.noise]).flatten(1).norm(dim=1).sum())

    assert total("cuda") == pytest.approx(total("cpu"), rel=1e-6 if name != "sinkhorn" else 1e-3)


def test_costs_are_exact_where_convolutions_take_tf32():
    g = torch.Generator(device="cuda").manual_seed(0)
    images, noise = torch.randn(2, 256, 3, 32, 32, generator=g, device="cuda")
    kernel = torch.randn(32, 3, 3, 3, generator=g, device="cuda")
    with multiplying_in("float32"):
        costs, convolved = pairwise_cost(images, noise), torch.conv2d(images, kernel)
    with multiplying_in("tf32"):
        assert torch.equal(pairwise_cost(images, noise), costs)
        assert not torch.equal(torch.conv2d(images, kernel), convolved)


def test_pools_are_coupled_beside_the_training(tmp_path):
    settings = {
        "denoiser.images": 8192,
        "denoiser.pools_ahead": 3,
        "samples.count": 256,
    }
    result = genkit.run_recipe("edm_aot_cond", out=tmp_path, settings=settings, device="cuda")
    rows = (result.folder / "01-denoiser" / "metrics.jsonl").read_text()
    assert '"reduction"' in rows


def small_trainer(precision="float32", clip=None, compiled=False):
    """Return a trainer of a small U-Net on the GPU, conditioned on all there is."""
    with seeded(0):
        network = genkit.component(
            "denoiser",
            "ddpmpp",
            channels=32,
            dropout=0.1,
            class_conditional=True,
            label_dropout=0.1,
        )
        model = network.build(DataSpec((3, 16, 16), classes=10, augment_labels=9))
    adam = genkit.component("optimizer", "adam", learning_rate_ramp=1000, gradient_clip=clip)
    average = genkit.component("average", "power-ema", half_life=1000)
    compute = Compute(precision=precision, channels_last=True, compiled=compiled, micro_batch=16)
    objective = genkit.component("objective", "denoising")
    context = SimpleNamespace(
        device=torch.device("cuda"), world=SINGLE_PROCESS, seed=partial(derive_seed, 0)
    )
    return Trainer(context, model, objective, adam, average, (3, 16, 16), compute)


def small_batch(index=0):
    g = torch.Generator().manual_seed(index)
    images, noise = torch.randn(2, 64, 3, 16, 16, generator=g)
    quantile = torch.rand(64, generator=g, dtype=torch.float64)
    labels, told = torch.randint(10, (64,), generator=g), torch.randn(64, 9, generator=g)
    return genkit.Batch(images, labels, quantile=quantile, augment_labels=told), noise


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_training_step_waits_for_nothing(precision, clip):
    trainer = small_trainer(precision, clip)
    trainer.step(*small_batch())
    trainer.mean_loss()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with multiplying_in(precision):
            for index in range(3):
                trainer.step(*small_batch(index))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.mean_loss() > 0


@pytest.mark.parametrize("solver", ["heun", "euler", "dpmpp-2m", "dpmpp-2s"])
def test_a_guided_step_waits_for_nothing(solver):
    spec, device = DataSpec((2,)), torch.device("cuda")
    with seeded(0):
        denoiser = genkit.component("denoiser", "mlp", width=8).build(spec).to(device).eval()
        judge = genkit.component("discriminator", "mlp-discriminator", width=8).build(spec)
    trained = Trained(None, spec, judge.to(device).eval())
    inputs = SimpleNamespace(network=lambda _: trained)
    boosting = solver in ("heun", "euler")
    table = {"use": "discriminator", "discriminator": "judge", "boosting": boosting}
    guide = bind_guidance(component(load_plugins().registry, "guidance", table), inputs, None)
    states = trajectory(
        GuidedDenoiser(denoiser, guidance=[guide]),
        Draws(torch.randn(4, 2, device=device), None, torch.randn_like),
        schedule=genkit.component("schedule", "edm", steps=8),
        solver=genkit.component("solver", solver),
    )
    next(states)  # the first call of a kernel may load it
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(states)) == 8
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("precision", "rel"), [("float32", 1e-3), ("tf32", 1e-2)])
def test_a_compiled_network_takes_the_same_steps(precision, rel):
    plain, compiled = small_trainer(precision), small_trainer(precision, compiled=True)
    for index in range(3):
        losses = []
        for trainer in (plain, compiled):
            trainer.model.eval()  # without dropout, which a compiler draws in another order
            with multiplying_in(precision):
                trainer.step(*small_batch(index))
            losses.append(trainer.mean_loss())
        assert losses[1] == pytest.approx(losses[0], rel=rel)
    assert plain.state()[0].keys() == compiled.state()[0].keys()
