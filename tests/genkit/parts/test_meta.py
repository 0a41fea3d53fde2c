"""Networks that no machine can build are refused, instead of being built for ever."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genkit.errors import Code
from genkit.parts.meta import MOST_ELEMENTS, MOST_TENSORS, TooLargeError, without_memory
from raising import raises_code

HUGE = 2**62


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Linear(HUGE, HUGE),
        lambda: nn.Linear(10 * HUGE, 3),
        lambda: nn.Conv2d(HUGE, 3, 3),
        lambda: torch.randn(HUGE, HUGE),
        lambda: [torch.empty(1) for _ in range(MOST_TENSORS + 1)],
        lambda: torch.arange(MOST_ELEMENTS + 1, device="cpu"),
        lambda: torch.arange(-MOST_ELEMENTS, 1, device="cpu"),
        lambda: torch.arange(0, end=MOST_ELEMENTS, step=0.5, device="cpu"),
        lambda: torch.arange(10**400, device="cpu"),
        lambda: torch.linspace(0, 1, MOST_ELEMENTS + 1, device="cpu"),
        lambda: torch.linspace(0, 1, steps=MOST_ELEMENTS + 1, device="cpu"),
        lambda: torch.zeros((MOST_ELEMENTS, 2), device="cpu"),
        lambda: torch.zeros(MOST_ELEMENTS, 2, device="cpu"),
        lambda: torch.zeros(size=(MOST_ELEMENTS, 2), device="cpu"),
    ],
)
def test_a_network_of_too_many_or_too_large_tensors_is_refused(build):
    with raises_code(TooLargeError, Code.OUT_OF_MEMORY), without_memory():
        build()
    assert torch.empty(1).device.type == "cpu"  # the mode has ended


def test_small_constants_and_other_errors_are_kept():
    with without_memory():
        assert torch.arange(3, device="cpu").tolist() == [0, 1, 2]
        assert len(torch.arange(MOST_ELEMENTS, MOST_ELEMENTS + 3, device="cpu")) == 3
        assert len(torch.arange(0, 1e9, 1e8, device="cpu")) == 10
        assert len(torch.linspace(0, 1e8, 16, device="cpu")) == 16
    for error in (TypeError("absent"), OverflowError("result too large")):
        with pytest.raises(type(error), match=str(error)), without_memory():
            raise error


def test_a_mixture_of_64_experts_in_32_layers_is_accepted():
    with without_memory():
        for _ in range(64 * 3 * 32):
            torch.empty(1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.arange(device="cpu"),
        lambda: torch.arange(0, 3, 0, device="cpu"),
        lambda: torch.linspace(0, 1, device="cpu"),
        lambda: torch.zeros("x", device="cpu"),
        lambda: torch.zeros(-1, device="cpu"),
    ],
)
def test_errors_of_torch_for_invalid_arguments_are_kept(build):
    with pytest.raises((TypeError, RuntimeError)), without_memory():
        build()
