from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import nn

from genkit_edm.edm2.layers import (
    SILU_RMS,
    CosineAttention,
    MPConv,
    MPFourier,
    MPLinear,
    mp_cat,
    mp_silu,
    mp_sum,
    to_unit_rms,
)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def rms(x, dim=None):
    return x.square().mean(dim=dim).sqrt()


def test_unit_rms_over_any_dimensions():
    x = 7 * torch.randn(4, 5, 6)
    assert torch.allclose(rms(to_unit_rms(x, 1), 1), torch.ones(4, 6), rtol=1e-3)
    assert torch.allclose(rms(to_unit_rms(x, (1, 2)), (1, 2)), torch.ones(4), rtol=1e-3)
    assert to_unit_rms(x.bfloat16(), 1).dtype == torch.bfloat16
    assert to_unit_rms(torch.zeros(2, 3), 1).abs().max() == 0


def test_silu_keeps_the_mean_square_of_normal_values():
    def integrand(x):
        return (x / (1 + math.exp(-x))) ** 2 * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    exact = math.sqrt(quad(integrand, -12, 12)[0])
    assert pytest.approx(exact, rel=1e-3) == SILU_RMS
    x = torch.randn(200_000)
    assert float(rms(mp_silu(x))) == pytest.approx(1, abs=0.01)
    assert torch.allclose(mp_silu(x) * SILU_RMS, F.silu(x))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_sum_keeps_the_variance_of_uncorrelated_branches(share):
    a, b = torch.eye(2)  # of the coefficients of two orthonormal vectors
    assert float(mp_sum(a, b, share).norm()) == pytest.approx(1)
    found = mp_sum(a, b, share)
    assert float(found[1]) == pytest.approx(share / math.hypot(1 - share, share))


@pytest.mark.parametrize(("c", "d"), [(4, 4), (3, 12)])
def test_side_by_side_both_branches_contribute_alike(c, d):
    a, b = torch.randn(2, c, 4, 4), torch.randn(2, d, 4, 4)
    a, b = (x / rms(x) for x in (a, b))
    joined = mp_cat(a, b)
    assert float(rms(joined)) == pytest.approx(1, rel=1e-5)
    energies = [float(part.square().sum()) for part in joined.split([c, d], dim=1)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-5)


def test_fourier_features_have_unit_variance_for_any_number():
    features = MPFourier(50_000)
    found = features(torch.tensor([-30.0, 0.0, 0.1, 4.0]))
    assert torch.allclose(rms(found, 1), torch.ones(4), atol=0.02)
    assert found.dtype == torch.float32
    expected = math.sqrt(2) * torch.cos(features.frequencies[:5] * 0.1 + features.phases[:5])
    assert torch.allclose(found[2, :5], expected, atol=1e-5)
    assert not list(features.parameters())
    assert set(features.state_dict()) == {"frequencies", "phases"}


@pytest.mark.parametrize("scale", [1.0, 0.01, 300.0])
def test_weights_of_any_length_give_unit_variance(scale):
    linear, conv = MPLinear(256, 300).eval(), MPConv(64, 64, 3).eval()
    with torch.no_grad():
        linear.weight *= scale
        conv.weight *= scale
        y = linear(torch.randn(500, 256))
        z = conv(torch.randn(8, 64, 18, 18))[:, :, 1:-1, 1:-1]  # at the border zeros come in
    assert float(rms(y)) == pytest.approx(1, abs=0.03)
    assert float(rms(z)) == pytest.approx(1, abs=0.03)


def test_a_gain_scales_the_result_and_is_trained():
    layer, x = MPConv(3, 4, 3).eval(), torch.randn(2, 3, 5, 5)
    gain = torch.tensor(2.5, requires_grad=True)
    assert torch.allclose(layer(x, gain), 2.5 * layer(x), atol=1e-5)
    layer(x, gain).square().sum().backward()
    assert float(gain.grad) > 0
    assert layer(x, torch.tensor(0.0)).abs().max() == 0


def test_a_convolution_of_unit_rows():
    # Closed form: each output's weight, as a vector, has length 1.
    layer = MPConv(2, 3, 3).eval()
    x = torch.randn(1, 2, 4, 4)
    unit = layer.weight / layer.weight.flatten(1).norm(dim=1)[:, None, None, None]
    assert torch.allclose(layer(x), F.conv2d(x, unit, padding=1), atol=1e-3)


@pytest.mark.parametrize("layer", [MPLinear(8, 5), MPConv(4, 6, 3)])
def test_the_gradient_is_orthogonal_to_each_row(layer):
    x = torch.randn(16, 8) if isinstance(layer, nn.Linear) else torch.randn(16, 4, 5, 5)
    layer(x).square().sum(dim=0).sin().sum().backward()
    inner = (layer.weight.grad * layer.weight).flatten(1).sum(1)
    size = layer.weight.grad.flatten(1).norm(dim=1) * layer.weight.flatten(1).norm(dim=1)
    assert (inner / size).abs().max() < 1e-3


@pytest.mark.parametrize("layer", [MPLinear(40, 5), MPConv(8, 6, 3)])
def test_weights_keep_their_norm_in_training_only(layer):
    x = torch.randn(4, 40) if isinstance(layer, nn.Linear) else torch.randn(4, 8, 5, 5)
    with torch.no_grad():
        layer.weight *= 3
        kept = layer.weight.clone()
    layer.eval()(x)
    assert torch.equal(layer.weight, kept)
    after = layer(x).detach()
    assert torch.allclose(layer.train()(x), after, atol=1e-3)
    rows = rms(layer.weight.flatten(1), 1)
    assert torch.allclose(rows, torch.ones_like(rows), rtol=1e-3)
    for parameter in layer.parameters():
        assert parameter.requires_grad
        assert parameter.is_leaf


def test_attention_is_that_of_explicit_matrices():
    layer = CosineAttention(12, heads=3, share=0.3).eval()
    x = torch.randn(2, 12, 4, 5)
    qkv = layer.qkv(x).reshape(2, 3, 3, 4, 20)
    q, k, v = (qkv / (1e-4 + rms(qkv, 3)[:, :, :, None])).unbind(1)
    weights = torch.einsum("nhcq,nhck->nhqk", q, k / 2).softmax(-1)
    mixed = torch.einsum("nhqk,nhck->nhcq", weights, v).reshape(2, 12, 4, 5)
    expected = mp_sum(x, layer.proj(mixed), 0.3)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    laid_out = layer(x.to(memory_format=torch.channels_last))
    assert torch.allclose(laid_out, expected, atol=1e-5)


def test_attention_over_equal_pixels_keeps_the_magnitude():
    layer = CosineAttention(256, heads=4, share=1.0).eval()
    x = torch.randn(50, 256, 1, 1).expand(50, 256, 3, 3).contiguous()
    assert float(rms(layer(x).detach())) == pytest.approx(1, abs=0.05)
