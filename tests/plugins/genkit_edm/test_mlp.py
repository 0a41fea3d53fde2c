from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, SettingError
from genkit.types import Batch, DataSpec
from genkit_edm.denoising import Denoising
from genkit_edm.edm import EdmPreconditioner, LogNormal
from genkit_edm.mlp import Mlp
from raising import raises_code

DIGITS = DataSpec((1, 8, 8), classes=10)


def build(spec: DataSpec = DIGITS, *, trained: bool = False, **settings) -> nn.Module:
    """A network; `trained` ones have an output layer that is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Mlp(preconditioner=EdmPreconditioner(), **settings).build(spec)
        if trained:
            nn.init.normal_(model.network.out.weight, std=0.1)
    return model


def inputs(spec: DataSpec = DIGITS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *spec.shape, generator=generator)
    return x, torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0, 9, 4])


@pytest.mark.parametrize("shape", [(1, 8, 8), (2,), (3, 4, 5)])
def test_the_result_has_the_shape_of_the_input(shape: tuple[int, ...]) -> None:
    spec = DataSpec(shape)
    x, sigma, _ = inputs(spec)
    assert build(spec, width=16)(x, sigma, None).shape == x.shape


def test_the_default_is_of_the_documented_size() -> None:
    assert sum(p.numel() for p in build().parameters()) == pytest.approx(1.7e6, rel=0.05)


def test_the_untrained_denoiser_is_c_skip_x() -> None:
    x, sigma, _ = inputs()
    c = EdmPreconditioner().coefficients(sigma)
    torch.testing.assert_close(build()(x, sigma, None), c.c_skip[:, None, None, None] * x)


def test_gradient_reaches_every_parameter() -> None:
    model = build(trained=True, width=32, class_conditional=True)
    model(*inputs()).square().sum().backward()
    unreached = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert unreached == []


def test_an_unconditional_network_ignores_labels() -> None:
    x, sigma, labels = inputs()
    model = build(trained=True)
    assert torch.equal(model(x, sigma, labels), model(x, sigma, None))


def test_a_conditional_network_tells_classes_apart() -> None:
    x, sigma, labels = inputs()
    model = build(trained=True, class_conditional=True)
    assert not torch.equal(model(x, sigma, labels), model(x, sigma, labels.flip(0)))
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "0 to 9"):
        model(x, sigma, None)


def test_the_noise_level_matters() -> None:
    c_noise = torch.tensor([-1.0, 0.0, 1.0])
    x = torch.ones(3, 1, 8, 8)
    raw = build(trained=True).network(x, c_noise, None).detach()
    assert float((raw[0] - raw[1]).abs().max()) > 1e-3
    assert float((raw[1] - raw[2]).abs().max()) > 1e-3


def test_dropout_acts_in_training_only() -> None:
    x, sigma, _ = inputs()
    model = build(trained=True, dropout=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model(x, sigma, None), model(x, sigma, None))
        model.eval()
        assert torch.equal(model(x, sigma, None), model(x, sigma, None))


def test_it_learns_gaussian_data() -> None:
    # For N(0, s^2) data the best denoiser is known: x s^2 / (s^2 + sigma^2).
    spread = 0.2
    generator = torch.Generator().manual_seed(0)
    model = build(DataSpec((2,)), width=32, blocks=1)
    objective = Denoising(noise_distribution=LogNormal())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        data = spread * torch.randn(256, 2, generator=generator)
        quantile = torch.rand(256, generator=generator, dtype=torch.float64)
        noise = torch.randn(256, 2, generator=generator)
        loss = objective.loss(model, Batch(data, quantile=quantile), noise, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sigma = torch.full((200,), 0.3)
    x = 0.36 * torch.randn(200, 2, generator=generator)
    error = model(x, sigma, None).detach() - x * spread**2 / (spread**2 + 0.3**2)
    # Untrained, with the c_skip of sigma_data = 0.5, the error is 0.15.
    assert float(error.square().mean().sqrt()) < 0.04


def test_labels_asked_of_data_without_are_refused() -> None:
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "class_conditional"):
        build(DataSpec((1, 8, 8)), class_conditional=True)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"blocks": 0}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, next(iter(wrong))):
        build(**wrong)
