"""Compare the U-Nets of genkit_edm with a checkout of EDM's reference implementation.

    python docs/results/edm_parity.py --edm DIR

DIR is a checkout of https://github.com/NVlabs/edm, whose ``training/networks.py`` is imported from
there. For every kind of network: the same random weights on both sides, the greatest difference of
what they return relative to the norm of it; and how far the initial weights' standard deviations
are apart, over the layers of at least 4,096 weights.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genkit_edm.reference import (
    denoiser_from_reference,
    network_from_reference,
    weights_from_reference,
)

SMALL = {
    "img_resolution": 16,
    "img_channels": 3,
    "label_dim": 4,
    "augment_dim": 9,
    "model_channels": 32,
    "channel_mult": [1, 2, 4],
    "num_blocks": 2,
    "attn_resolutions": [8, 4],
    "dropout": 0.0,  # the two draw their masks differently
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


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a name, a preconditioning and its arguments."""
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
    """Give each layer random weights that keep variances, and return all of them."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(std=p[0].numel() ** -0.5)
            else:
                p.add_(0.1 * torch.randn_like(p))
    return dict(model.state_dict())


def difference(theirs: nn.Module, precond: str, arguments: dict[str, Any]) -> float:
    """Return the greatest relative difference of outputs and gradients, also in training."""
    ours = denoiser_from_reference(randomised(theirs), precond, arguments)
    ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = arguments["img_resolution"]
    sigma = torch.tensor([0.03, 0.5, 30.0])
    x = torch.randn(3, 3, size, size) * (1 + sigma[:, None, None, None])
    classes, augment = arguments.get("label_dim", 0), arguments.get("augment_dim", 0)
    labels = torch.eye(classes)[torch.arange(3) % classes] if classes else None
    told = torch.randn(3, augment) if augment else None
    worst = 0.0
    for training in (False, True):
        found = []
        for model in (theirs.train(training), ours.train(training)):
            torch.manual_seed(0)  # of the labels that are dropped
            given = x.to(memory_format=torch.channels_last).requires_grad_()
            rest = () if told is None else (told,)
            result = (
                model(given, sigma, labels, *rest)
                if model is ours
                else model(given, sigma, labels, **({"augment_labels": told} if rest else {}))
            )
            (gradient,) = torch.autograd.grad(result.square().mean(), given)
            found.append((result.detach(), gradient))
        for mine, other in zip(found[1], found[0], strict=True):
            worst = max(worst, float((mine - other).norm() / other.norm()))
    return worst


def start(theirs: nn.Module, precond: str, arguments: dict[str, Any]) -> float:
    """Return how far the standard deviations of initial weights are apart at most."""
    expected = weights_from_reference(dict(theirs.state_dict()), precond, arguments)
    settings, spec = network_from_reference(precond, arguments)
    found = settings.build(spec).state_dict()
    return max(
        abs(float(found[name].std() - value.std())) / max(float(value.std()), 1e-12)
        for name, value in expected.items()
        if value.numel() >= 4096
    )


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--edm", type=Path, required=True, help="a checkout of NVlabs/edm")
    sys.path.insert(0, str(parser.parse_args().edm))
    reference = importlib.import_module("training.networks")
    print(f"{'case':44} {'weights':>10} {'output':>10} {'start':>8}")
    for name, precond, arguments in cases():
        torch.manual_seed(0)
        theirs = getattr(reference, precond)(**arguments)
        apart = start(theirs, precond, arguments)
        count = sum(p.numel() for p in theirs.parameters())
        worst = difference(theirs, precond, arguments)
        print(f"{name:44} {count:10,} {worst:10.1e} {apart:8.2%}", flush=True)


if __name__ == "__main__":
    main()
