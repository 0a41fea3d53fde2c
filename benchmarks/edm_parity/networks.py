"""Compare outputs, input gradients and initial weights of networks with those of the reference.

Each network has the same random weights in both implementations. Two differences are reported: the
maximum difference of outputs and input gradients relative to their norms, in eval and training mode;
and the maximum relative difference of the standard deviations of initial weights, over the layers
with at least 4,096 weights. The outputs of an EDM2 network are the denoised images and the
uncertainty u(sigma).
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from genkit.interfaces import Preconditioned
from genkit_edm.edm2.uncertainty import Uncertain
from genkit_edm.reference.networks import (
    denoiser_from_reference,
    from_reference,
    network_from_reference,
)

Arguments = dict[str, Any]

SMALL = {
    "img_resolution": 16,
    "img_channels": 3,
    "label_dim": 4,
    "augment_dim": 9,
    "model_channels": 32,
    "channel_mult": [1, 2, 4],
    "num_blocks": 2,
    "attn_resolutions": [8, 4],
    "dropout": 0.0,  # the implementations draw different dropout masks
}
CIFAR10 = {
    "img_resolution": 32,
    "img_channels": 3,
    "augment_dim": 9,
    "model_type": "SongUNet",
    "channel_mult": [2, 2, 2],
    "dropout": 0.0,
}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
EDM2 = {
    "img_resolution": 16,
    "img_channels": 3,
    "label_dim": 0,
    "model_channels": 32,
    "channel_mult": [1, 2, 4],
    "num_blocks": 2,
    "attn_resolutions": [8, 4],
    "channels_per_head": 16,
}


def edm2_cases() -> Iterator[tuple[str, str, Arguments]]:
    """Yield the name, the class in the reference and its arguments, for each network of EDM2."""
    yield "edm2", "Precond", EDM2
    yield "edm2, classes", "Precond", {**EDM2, "label_dim": 4}
    yield "edm2, one level", "Precond", {**EDM2, "channel_mult": [1], "attn_resolutions": []}
    yield "edm2, one head", "Precond", {**EDM2, "channels_per_head": 32, "num_blocks": 1}
    yield "edm2, other widths", "Precond", {**EDM2, "channel_mult": [2, 1, 3], "sigma_data": 0.7}
    yield "edm2, latents", "Precond", {**EDM2, "img_channels": 4, "label_dim": 10}
    size_xs = {"model_channels": 128, "img_resolution": 64, "label_dim": 1000}
    yield "ImageNet-64, edm2-xs", "Precond", size_xs | {"img_channels": 3}


def cases() -> Iterator[tuple[str, str, Arguments]]:
    """Yield the name, the preconditioning class and its arguments, for each network of EDM."""
    song = {**SMALL, "model_type": "SongUNet"}
    for embedding, encoder, decoder, taps in itertools.product(
        ["positional", "fourier"],
        ["standard", "skip", "residual"],
        ["standard", "skip"],
        [[1, 1], [1, 3, 3, 1], [1, 5, 10, 10, 5, 1]],
    ):
        kind = {"embedding_type": embedding, "encoder_type": encoder, "decoder_type": decoder}
        name = f"{embedding} {encoder} {decoder} {len(taps)} taps"
        yield name, "EDMPrecond", {**song, **kind, "resample_filter": taps}
    yield "song, label dropout", "EDMPrecond", {**song, "label_dropout": 0.5}
    yield "song, other widths", "EDMPrecond", {**song, "channel_mult_emb": 2, "label_dim": 0}
    yield "song, vp", "VPPrecond", {**song, "M": 500}
    yield "ncsnpp, ve", "VEPrecond", {**song, **NCSNPP}
    adm = {**SMALL, "model_type": "DhariwalUNet"}
    yield "adm", "EDMPrecond", adm
    yield "adm, label dropout", "EDMPrecond", {**adm, "label_dropout": 0.5, "augment_dim": 0}
    yield "adm, iddpm", "iDDPMPrecond", {**adm, "label_dim": 0, "augment_dim": 0}
    yield "song, iddpm", "iDDPMPrecond", song
    yield "CIFAR-10, ddpmpp", "EDMPrecond", {**CIFAR10, "label_dim": 10}
    yield "CIFAR-10, ncsnpp", "EDMPrecond", {**CIFAR10, **NCSNPP}


def randomised(model: nn.Module) -> dict[str, Tensor]:
    """Initialize each layer with random weights that preserve the variance; return all weights."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(std=p[0].numel() ** -0.5)
            else:  # a bias, or a gain of EDM2, which are initialized to 0
                p.add_(torch.randn_like(p) * (0.1 if p.ndim else 1))
    return dict(model.state_dict())


def outputs(
    model: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor | None, augment: Tensor | None
) -> list[Tensor]:
    """Return the denoised images, and u(sigma) if it is an EDM2 network.

    The model may be genkit's or the reference's.
    """
    if isinstance(model, Uncertain):
        return [model(x, sigma, labels), model.uncertainty(sigma)]
    if isinstance(model, Preconditioned):
        return [model(x, sigma, labels, augment)]
    if hasattr(model, "logvar_linear"):
        denoised, u = model(x, sigma, labels, return_logvar=True)
        return [denoised, u.flatten()]
    return [model(x, sigma, labels, **({} if augment is None else {"augment_labels": augment}))]


def difference(theirs: nn.Module, precond: str, arguments: Arguments) -> float:
    """Return the maximum relative difference between the reference and genkit's copy.

    The maximum is over outputs and gradients, in training and in eval mode.
    """
    ours = denoiser_from_reference(randomised(theirs), precond, arguments)
    ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size, channels = arguments["img_resolution"], arguments["img_channels"]
    sigma = torch.tensor([0.03, 0.5, 30.0])
    x = torch.randn(3, channels, size, size) * (1 + sigma[:, None, None, None])
    classes, augment = arguments.get("label_dim", 0), arguments.get("augment_dim", 0)
    labels = torch.eye(classes)[torch.arange(3) % classes] if classes else None
    augment_labels = torch.randn(3, augment) if augment else None
    worst = 0.0
    for training in (False, True):
        both = []
        for model in (theirs.train(training), ours.train(training)):
            torch.manual_seed(0)  # seeds the label dropout
            given = x.to(memory_format=torch.channels_last).requires_grad_()
            results = outputs(model, given, sigma, labels, augment_labels)
            (gradient,) = torch.autograd.grad(results[0].square().mean(), given)
            both.append([*(result.detach() for result in results), gradient])
        for mine, other in zip(both[1], both[0], strict=True):
            worst = max(worst, float((mine - other).norm() / other.norm()))
    return worst


def start(theirs: nn.Module, precond: str, arguments: Arguments) -> float:
    """Return the maximum relative difference of the standard deviations of initial weights."""
    expected = from_reference(dict(theirs.state_dict()), precond, arguments)[2]
    settings, spec = network_from_reference(precond, arguments)
    found = settings.build(spec).state_dict()
    return max(
        abs(float(found[name].std() - value.std())) / max(float(value.std()), 1e-12)
        for name, value in expected.items()
        if value.numel() >= 4096
    )


def compared(precond: str, arguments: Arguments, module: str) -> tuple[int, float, float]:
    """Return the number of weights, and the differences of outputs and of initial weights.

    Args:
        precond: name of the class in the reference.
        arguments: arguments of the constructor.
        module: module of the class.
    """
    torch.manual_seed(0)
    theirs = getattr(importlib.import_module(module), precond)(**arguments)
    deviation = start(theirs, precond, arguments)
    count = sum(p.numel() for p in theirs.parameters())
    return count, difference(theirs, precond, arguments), deviation
