"""EDM2's network, loss and gradient against tensors that the reference implementation wrote.

In the file, x is images + sigma * noise, with noise of unit variance; denoised and logvar are of
eval mode; loss is the mean over each image in training mode, and the gradient is that of its mean
over the batch.
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from genkit.random import generator, seeded
from genkit.types import Batch
from genkit_edm.edm import LogNormal
from genkit_edm.edm2.uncertainty import UncertaintyDenoising
from genkit_edm.reference.networks import from_reference, network_from_reference

TOLERANCE = 1e-5
DAMAGE = 3e-5
LEVELS = LogNormal(p_mean=-0.4, p_std=1.0)


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def compared(outputs: dict[str, Tensor], gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that are compared one by one.

    Each image is one of them. The gradients of the gains, which are single numbers, are one vector:
    float32 leaves up to 1e-5 of a number that is a sum of terms which almost cancel.
    """
    images = {f"denoised.{index}": image for index, image in enumerate(outputs["denoised"])}
    wide = {name: value for name, value in gradient.items() if value.ndim}
    gains = torch.stack([gradient[name] for name in sorted(gradient) if not gradient[name].ndim])
    return {"logvar": outputs["logvar"], "loss": outputs["loss"], **images, **wide, "gains": gains}


def worst_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the greatest relative error of a tensor, by its norm."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name].double() - value.double()).norm() / value.double().norm())
        for name, value in expected.items()
    )


@pytest.fixture(scope="module")
def golden(edm_golden):
    return edm_golden("edm2_uncond")


@pytest.fixture(scope="module")
def found(golden) -> dict[str, Tensor]:
    """What our network makes of the same inputs."""
    tensors, metadata = golden
    arguments = json.loads(metadata["arguments"])
    settings, spec = network_from_reference("Precond", arguments)
    with seeded(0):
        model = settings.build(spec)
    model.load_state_dict(from_reference(with_prefix(tensors, "weights."), "Precond", arguments)[2])
    outputs = {}
    with torch.no_grad():
        outputs["denoised"] = model.eval()(tensors["x"], tensors["sigma"])
        outputs["logvar"] = model.uncertainty(tensors["sigma"])
    quantile = torch.special.ndtr(tensors["sigma"].double().log() + 0.4)
    batch = Batch(tensors["images"], quantile=quantile)
    objective = UncertaintyDenoising(noise_distribution=LEVELS)
    loss = objective.loss(model.train(), batch, tensors["noise"], generator(0))
    loss.mean().backward()
    outputs["loss"] = loss.detach()
    return compared(outputs, in_the_order_of_the_reference(model, tensors, metadata, arguments))


def in_the_order_of_the_reference(model, tensors, metadata, arguments) -> dict[str, Tensor]:
    """Return our gradients under the reference's names, with its order of elements.

    Where an element lies is found by importing numbers that count the elements.
    """
    weights = with_prefix(tensors, "weights.")
    names = [name for name in json.loads(metadata["order"]) if f"gradient.{name}" in tensors]
    counted, start = {name: torch.zeros_like(value) for name, value in weights.items()}, 1
    for name in names:
        counted[name] = torch.arange(start, start + weights[name].numel()).view_as(weights[name])
        start += weights[name].numel()
    assert start < 2**24  # float32 holds these numbers
    counted = {name: value.float() for name, value in counted.items()}
    places = from_reference(counted, "Precond", arguments)[2]
    gradient = torch.full((start,), torch.nan)
    for name, parameter in model.named_parameters():
        gradient[places[name].long().flatten()] = parameter.grad.flatten()
    parts = gradient[1:].split([weights[name].numel() for name in names])
    return {name: part.view_as(weights[name]) for name, part in zip(names, parts, strict=True)}


@pytest.fixture(scope="module")
def expected(golden) -> dict[str, Tensor]:
    tensors, _ = golden
    return compared(tensors, with_prefix(tensors, "gradient."))


def test_inputs_are_those_of_the_objective(golden):
    tensors, _ = golden
    sigma = tensors["sigma"]
    assert torch.equal(
        tensors["x"], tensors["images"] + sigma[:, None, None, None] * tensors["noise"]
    )
    quantile = torch.special.ndtr(sigma.double().log() + 0.4)
    levels = LEVELS.levels(Batch(tensors["images"], quantile=quantile))
    torch.testing.assert_close(levels, sigma, rtol=1e-6, atol=0)


def test_output_uncertainty_loss_and_gradient_are_those_of_the_reference(found, expected):
    assert len(expected) == 5 + 1 + 1 + 70 + 1
    assert worst_error(found, expected) < TOLERANCE


def test_damage_is_seen_in_every_tensor(found, expected):
    draws = generator(0)
    for name, value in expected.items():
        noise = torch.randn(value.shape, generator=draws)
        damaged = value + DAMAGE * value.norm() * noise / noise.norm()
        assert worst_error(found, {**expected, name: damaged}) > TOLERANCE, name
