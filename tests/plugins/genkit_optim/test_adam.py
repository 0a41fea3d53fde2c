from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from genkit_optim.adam import Adam

GRADIENTS = torch.tensor([[0.3, -2.0], [1.0, 0.5], [-0.2, 0.1]], dtype=torch.float64)


def steps(settings, terms, scale):
    """Return a weight after a step for each gradient, of which some terms are the mean."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -3.0], dtype=torch.float64))
    optimizer = settings.build([weight], terms)
    for gradient in GRADIENTS:
        weight.grad = gradient * scale
        optimizer.step()
    return weight.detach()


def expected(rate, decay):
    """Adam, algorithm 1 of arXiv 1412.6980, on gradients to which decaying weights are added."""
    weight = torch.tensor([1.0, -3.0], dtype=torch.float64)
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for number, gradient in enumerate(GRADIENTS, 1):
        gradient = gradient + decay * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = (second / (1 - 0.999**number)).sqrt()
        weight = weight - rate * first / (1 - 0.9**number) / (unbiased + 1e-8)
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_decaying_weights_are_added_to_the_gradient(decay):
    settings = Adam(learning_rate=0.01, weight_decay=decay)
    assert_close(steps(settings, 1, 1.0), expected(0.01, decay))
    # The mean of four terms gives the steps of their sum.
    assert_close(steps(settings, 4, 0.25), expected(0.01, decay))
