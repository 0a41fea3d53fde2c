from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genkit.types import DataSpec
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.unet.denoisers import Adm, Ddpmpp
from genkit_edm.unet.layers import Block

SPEC = DataSpec((3, 8, 8), classes=40, augment_labels=50)


def network(kind: type) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(
            preconditioner=EdmPreconditioner(),
            channels=64,
            channel_mult=(1, 2),
            blocks=1,
            attention=(4,),
            class_conditional=True,
        ).build_network(SPEC)


def attending(model: nn.Module) -> Block:
    block = model.middle[0]
    assert isinstance(block, Block)
    return block


def uniform_below(values: torch.Tensor, bound: float) -> bool:
    largest, deviation = float(values.detach().abs().max()), float(values.detach().std())
    return (
        largest <= bound * (1 + 1e-6)
        and largest > 0.95 * bound
        and deviation == pytest.approx(bound / math.sqrt(3), rel=0.06)
    )


def test_ddpmpp_starts_as_glorot_and_bengio_with_quiet_branches() -> None:
    model = network(Ddpmpp)
    block = attending(model)
    usual = math.sqrt(6 / (2 * 9 * 128))
    assert uniform_below(block.conv0.weight, usual)
    assert uniform_below(block.conv1.weight, 1e-5 * usual)
    assert uniform_below(block.affine.weight, math.sqrt(6 / (256 + 128)))
    assert uniform_below(block.attention.qkv.weight, math.sqrt(0.2 * 6 / (4 * 128)))
    assert uniform_below(block.attention.proj.weight, 1e-5 * math.sqrt(6 / 256))
    assert uniform_below(model.conditioning.label.linear.weight, math.sqrt(6 / (40 + 64)))
    assert uniform_below(model.conditioning.augment.weight, math.sqrt(6 / (50 + 64)))
    assert model.conditioning.augment.bias is None
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not bool(parameter.any())


def test_adm_starts_as_torch_does_with_silent_branches() -> None:
    model = network(Adm)
    block = attending(model)
    assert uniform_below(block.conv0.weight, 1 / math.sqrt(9 * 128))
    assert uniform_below(block.conv0.bias, 1 / math.sqrt(9 * 128))
    assert uniform_below(block.affine.weight, 1 / math.sqrt(256))
    assert uniform_below(block.attention.qkv.weight, 1 / math.sqrt(128))
    label = model.conditioning.label.linear.requires_grad_(False)
    assert label.bias is None
    assert float(label.weight.std()) == pytest.approx(1, rel=0.05)
    assert float(label.weight.abs().max()) > 3  # normal, and not uniform
    silent = [block.conv1, block.attention.proj, model.conditioning.augment]
    silent.append(model.decoder[-1].image_out.conv)
    for layer in silent:
        assert not any(bool(p.any()) for p in layer.parameters())
