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
        lambda: (10.0**300) ** 2,
        lambda: [nn.Linear(1, 1) for _ in range(MOST_TENSORS)],
        lambda: torch.arange(MOST_ELEMENTS + 1, device="cpu"),
        lambda: torch.zeros((MOST_ELEMENTS, 2), device="cpu"),
    ],
)
def test_a_network_of_too_many_or_too_large_tensors_is_refused(build):
    with raises_code(TooLargeError, Code.OUT_OF_MEMORY), without_memory():
        build()
    assert torch.empty(1).device.type == "cpu"  # the mode has ended


def test_small_constants_and_other_errors_are_kept():
    with without_memory():
        assert torch.arange(3, device="cpu").tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="absent"), without_memory():
        raise TypeError("absent")
