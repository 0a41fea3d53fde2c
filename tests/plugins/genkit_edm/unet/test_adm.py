from __future__ import annotations

import torch
from torch import Tensor, nn

from genkit import testing
from genkit.errors import Code, DataError
from genkit.types import DataSpec
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.unet.denoisers import Adm
from genkit_edm.unet.layers import Attention
from raising import raises_code

SMALL = {"channels": 32, "channel_mult": (1, 2), "blocks": 1, "attention": (8, 4)}


def settings(**chosen) -> Adm:
    return Adm(preconditioner=EdmPreconditioner(), **{**SMALL, **chosen})


def build(spec: DataSpec, **chosen) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return settings(**chosen).build(spec)


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.1, generator=generator)
    return model


def x() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_laws_hold() -> None:
    testing.check_denoiser(settings(), DataSpec((3, 8, 8), classes=3))


def test_the_untrained_network_adds_nothing() -> None:
    sigma = torch.tensor([0.1, 3.0])
    model = build(DataSpec((3, 8, 8)))
    assert not bool(model.network(x(), sigma, None).any())


def test_all_weights_learn() -> None:
    model = randomised(
        build(DataSpec((3, 8, 8), classes=3, augment_labels=2), class_conditional=True)
    )
    found = model(x(), torch.tensor([0.1, 2.0]), torch.tensor([0, 2]), torch.ones(2, 2))
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_attention_has_a_head_for_each_64_channels() -> None:
    model = build(DataSpec((3, 8, 8)), channel_mult=(1, 4))
    heads = [(m.heads, m.qkv.in_channels) for m in model.modules() if isinstance(m, Attention)]
    # 32 channels are too few for one; at 128, one block down, one in the middle, two up.
    assert heads == [(2, 128)] * 4


def test_classes_it_can_do_without() -> None:
    sigma = torch.tensor([0.1, 2.0])
    spec = DataSpec((3, 8, 8), classes=3)
    model = randomised(build(spec, class_conditional=True, label_dropout=0.1)).eval()
    assert torch.equal(model(x(), sigma, None), model(x(), sigma, torch.zeros(2, 3)))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "0 to 2"):
        build(spec, class_conditional=True)(x(), sigma, None)


def test_widths_that_heads_do_not_share_equally_are_refused() -> None:
    with raises_code(DataError, Code.CONFLICT, "200", "level 1", "3 attention heads"):
        settings(channels=100, channel_mult=(1, 2), attention=(4,)).build(DataSpec((3, 8, 8)))
