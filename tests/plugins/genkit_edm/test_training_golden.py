"""Twelve optimizer steps of the EDM-AOT reference, with its images, pairs and noise levels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from genkit import component
from genkit.random import derive_seed
from genkit.types import Batch
from genkit.world import SINGLE_PROCESS
from genkit_edm.reference.networks import from_reference, network_from_reference
from genkit_stages.train import Train

Weights = Mapping[str, Tensor]

LIMITS = {"loss": 1e-5, "after": 5e-4, "ema": 5e-4}
"""Relative error allowed in each loss, in the change of the weights and in that of their average.

With Adam's epsilon of a sum used for a mean they are 6e-4, 0.14 and 0.14.
"""


@pytest.fixture(scope="module")
def training(edm_golden):
    """What the file expects, and what the `train` stage computes of the file's inputs."""
    golden, metadata = edm_golden("training_aot_uncond")
    before, found = trained(golden, metadata)
    expected = {"loss": golden["loss"]}
    for name in ("after", "ema"):
        expected[name] = imported(golden, metadata, name)
    return before, found, expected


def imported(golden: Weights, metadata: Mapping[str, str], name: str) -> Weights:
    """Return weights of the file under genkit's names."""
    weights = {k.removeprefix(f"{name}."): v for k, v in golden.items() if k.startswith(name)}
    return from_reference(weights, metadata["precond"], json.loads(metadata["arguments"]))[2]


def trained(golden: Weights, metadata: Mapping[str, str]) -> tuple[Weights, dict[str, Any]]:
    """Return the initial weights, and the losses and final weights of the `train` stage."""
    how = json.loads(metadata["optimization"])
    network, spec = network_from_reference(metadata["precond"], json.loads(metadata["arguments"]))
    images, noise = golden["images"], golden["noise"]
    stage = Train(
        data=component("dataset", "digits"),  # not read
        network=network,
        objective=component("objective", "denoising"),
        coupler=component("coupler", "random"),
        images=images[:, :, 0, 0, 0].numel(),
        batch_size=images.shape[1],
        optimizer=component(
            "optimizer",
            "adam",
            learning_rate=how["lr"],
            learning_rate_ramp=how["lr_rampup"],
            beta2=how["beta2"],
        ),
        average=component(
            "average", "ema", half_life=how["ema_halflife"], ramp_up=how["ema_rampup_ratio"]
        ),
    )
    context = SimpleNamespace(
        device=torch.device("cpu"), world=SINGLE_PROCESS, seed=partial(derive_seed, 0)
    )
    trainer = stage.trainer(context, spec)
    before = imported(golden, metadata, "before")
    trainer.model.load_state_dict(before)
    trainer.average.model.load_state_dict(before)
    quantiles = torch.special.ndtr(golden["rnd_normal"].double())
    losses = [
        trainer.step(Batch(x, quantile=q, augment_labels=labels), n)
        for x, n, q, labels in zip(images, noise, quantiles, golden["augment_labels"], strict=True)
    ]
    after, ema = trainer.model.state_dict(), trainer.average.model.state_dict()
    return before, {"loss": torch.stack(losses), "after": after, "ema": ema}


def error(before: Weights, found: Any, expected: Any) -> float:
    """Return the worst relative error of losses, or the relative error of a change of weights."""
    if isinstance(expected, Tensor):
        return float(((found - expected).abs() / expected.abs()).max())
    apart, changed = (
        torch.cat([(one[name] - other[name]).double().flatten() for name in before])
        for one, other in ((found, expected), (expected, before))
    )
    return float(apart.norm() / changed.norm())


@pytest.mark.parametrize("name", LIMITS)
def test_steps_are_those_of_the_reference(training, name: str) -> None:
    before, found, expected = training
    assert error(before, found[name], expected[name]) < LIMITS[name]


@pytest.mark.parametrize("name", LIMITS)
def test_a_damaged_copy_fails(training, name: str) -> None:
    before, found, expected = training
    values = expected[name]
    damaged = (
        values * (1 + 3e-5)
        if isinstance(values, Tensor)
        else {k: v * (1 + 3e-5) for k, v in values.items()}
    )
    assert error(before, found[name], damaged) > LIMITS[name]
