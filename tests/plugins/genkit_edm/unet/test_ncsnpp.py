from __future__ import annotations

import itertools

import pytest
import torch

from genkit import testing
from genkit.interfaces import Preconditioner
from genkit.types import DataSpec
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.iddpm import IddpmPreconditioner
from genkit_edm.unet.denoisers import Ncsnpp

SMALL = {"channels": 8, "channel_mult": (1, 2, 2), "blocks": 1, "attention": (4,)}


def settings(**chosen) -> Ncsnpp:
    return Ncsnpp(preconditioner=EdmPreconditioner(), **chosen)


def test_the_paper_has_as_many_weights_for_cifar10() -> None:
    with torch.device("meta"):
        model = settings(dropout=0.13).build(DataSpec((3, 32, 32), augment_labels=9))
    assert sum(p.numel() for p in model.parameters()) == 56_397_827


@pytest.mark.parametrize(
    ("encoder", "decoder", "taps"),
    list(
        itertools.product(
            ["standard", "skip", "residual"], ["standard", "skip"], [(1, 1), (1, 3, 3, 1)]
        )
    ),
)
def test_laws_hold_and_all_weights_learn(encoder: str, decoder: str, taps: tuple) -> None:
    network = settings(**SMALL, encoder=encoder, decoder=decoder, resample_filter=taps)
    testing.check_denoiser(network, DataSpec((3, 8, 8), classes=3))
    model = network.build(DataSpec((3, 8, 8), augment_labels=2))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model(x, torch.tensor([0.1, 2.0]), None, torch.ones(2, 2)).square().sum().backward()
    unreached = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert unreached == []


@pytest.mark.parametrize("preconditioner", [EdmPreconditioner(), IddpmPreconditioner()])
def test_it_is_compiled_as_one_graph(preconditioner: Preconditioner) -> None:
    """In training under autocast, with all that it can be told."""
    options = {"dropout": 0.1, "label_dropout": 0.1, "decoder": "skip", "class_conditional": True}
    network = Ncsnpp(**{**SMALL, "channel_mult": (1, 2)}, **options, preconditioner=preconditioner)
    model = network.build(DataSpec((3, 8, 8), classes=3, augment_labels=2))
    model.compile(backend="eager", fullgraph=True)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x, torch.tensor([0.1, 2.0]), torch.tensor([0, 2]), torch.ones(2, 2))
    found.square().sum().backward()
    assert found.dtype == torch.float32
    assert all(p.grad is not None for p in model.parameters())


def test_its_frequencies_are_kept_with_its_weights() -> None:
    first, second = (settings(**SMALL).build(DataSpec((1, 8, 8))) for _ in range(2))
    name = "network.conditioning.noise.freqs"
    assert not torch.equal(first.state_dict()[name], second.state_dict()[name])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert name not in dict(first.named_parameters())
