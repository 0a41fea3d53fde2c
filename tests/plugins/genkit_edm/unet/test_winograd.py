from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genkit_edm.unet import winograd
from genkit_edm.unet.winograd import Conv3x3, Winograd


def given(channels: int = 5, out: int = 7, batch: int = 3, size: tuple = (6, 10)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, *size), (out, channels, 3, 3), (out,)]
    return [torch.randn(s, generator=generator).requires_grad_() for s in shapes]


@pytest.mark.parametrize("chunk", [1, 2**22])
@pytest.mark.parametrize("size", [(6, 10), (2, 2), (16, 4)])
def test_results_and_gradients_are_those_of_the_plain_convolution(
    chunk: int, size: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "CHUNK", chunk)
    x, weight, bias = given(size=size)
    found = Winograd.apply(x, weight, bias)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    loss = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((found * loss).sum(), (x, weight, bias))
    plain = torch.autograd.grad((expected * loss).sum(), (x, weight, bias))
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_only_wanted_gradients_are_made() -> None:
    x, weight, bias = given()
    Winograd.apply(x.detach(), weight, bias.detach()).sum().backward()
    assert weight.grad is not None


def test_the_gradient_can_be_differentiated() -> None:
    tensors = [t.detach().double().requires_grad_() for t in given(2, 2, 1, (2, 4))]
    assert torch.autograd.gradgradcheck(Winograd.apply, tensors)


def wide(**changes) -> tuple[Conv3x3, Tensor]:
    settings = {"channels": 256, "size": (32, 32), **changes}
    x = torch.zeros(1, settings["channels"], *settings["size"])
    return Conv3x3(settings["channels"], 256), x.to(memory_format=torch.channels_last)


def test_a_wide_convolution_takes_it_and_gives_the_same() -> None:
    convolution, x = wide()
    x = torch.randn_like(x)
    assert convolution.is_faster(x)
    expected = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(convolution(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"channels": 64}, {"size": (16, 16)}, {"size": (33, 33)}])
def test_what_would_not_gain_does_not_take_it(changes: dict) -> None:
    convolution, x = wide(**changes)
    assert not convolution.is_faster(x)
    assert convolution(x).shape == (1, 256, *x.shape[2:])


def test_what_is_compiled_does_not_take_it() -> None:
    convolution, x = wide(size=(32, 64))
    compiled = torch.compile(convolution, backend="eager", fullgraph=True)
    assert type(convolution(x).grad_fn).__name__ == "WinogradBackward"
    assert type(compiled(x).grad_fn).__name__ == "ConvolutionBackward0"


def test_other_layouts_and_types_do_not_take_it() -> None:
    convolution, x = wide()
    assert not convolution.is_faster(x.contiguous())
    assert not convolution.to(torch.bfloat16).is_faster(x.to(torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert not wide()[0].is_faster(x)
