"""The preconditionings of other papers, and the noise levels that their networks know."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genkit.errors import Code, SettingError
from genkit.interfaces import Preconditioned, Preconditioner
from genkit_edm.edm import EdmPreconditioner
from genkit_edm.flow import FlowPreconditioner
from genkit_edm.iddpm import IddpmPreconditioner, iddpm_levels
from genkit_edm.ve import VePreconditioner
from genkit_edm.vp import VpPreconditioner
from raising import raises_code

SIGMA = torch.tensor([0.01, 0.1, 0.5, 3.0, 40.0], dtype=torch.float64)
ENDS = torch.tensor([0.0, torch.inf], dtype=torch.float64)


class Known(nn.Module):
    """A network that returns what it should, and keeps what it was told."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, labels):
        self.seen = x, c_noise
        return self.answer


def clean_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shape = (len(SIGMA), 3)
    return (
        torch.rand(shape, generator=g, dtype=torch.float64) * 2 - 1,
        torch.randn(shape, generator=g, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("preconditioner", "sign"),
    [(VpPreconditioner(), 1), (IddpmPreconditioner(), 1), (VePreconditioner(), -1)],
)
def test_the_network_predicts_the_noise(preconditioner: Preconditioner, sign: int) -> None:
    clean, noise = clean_and_noise()
    denoiser = Preconditioned(Known(sign * noise), preconditioner)
    x = clean + SIGMA[:, None] * noise
    torch.testing.assert_close(denoiser(x, SIGMA), clean)
    # The loss is then that of the noise, without a weight.
    c_out = preconditioner.coefficients(SIGMA).c_out
    torch.testing.assert_close(preconditioner.weight(SIGMA) * c_out**2, torch.ones_like(SIGMA))


def test_vp_networks_see_unit_variance_and_a_time() -> None:
    network = Known(torch.zeros(len(SIGMA), 3, dtype=torch.float64))
    x = torch.ones(len(SIGMA), 3, dtype=torch.float64)
    Preconditioned(network, VpPreconditioner())(x, SIGMA)
    seen, c_noise = network.seen
    torch.testing.assert_close(seen[:, 0], 1 / (SIGMA**2 + 1).sqrt())
    # EDM, table 1: M - 1 times the inverse of sqrt(exp(19.9 t^2 / 2 + 0.1 t) - 1).
    t = c_noise / 999
    torch.testing.assert_close((torch.exp(19.9 * t**2 / 2 + 0.1 * t) - 1).sqrt(), SIGMA)


def test_ve_networks_see_the_state_and_half_the_level() -> None:
    c = VePreconditioner().coefficients(SIGMA)
    torch.testing.assert_close(c.c_in, torch.ones_like(SIGMA))
    torch.testing.assert_close(c.c_noise, torch.log(SIGMA / 2))


def test_the_iddpm_table_is_that_of_the_recursion() -> None:
    m, c_1, c_2 = 1000, 0.001, 0.008

    def a(j: int) -> float:
        return math.sin(math.pi / 2 * j / (m * (c_2 + 1))) ** 2

    levels = [0.0]
    for j in range(m, 0, -1):
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / max(a(j - 1) / a(j), c_1) - 1))
    expected = torch.tensor(levels[1:], dtype=torch.float64)
    # As in the reference, a(j) is rounded to float32; errors of 1,000 ratios add up. The golden
    # samples over levels of iDDPM hold the rest to 1e-9.
    found = iddpm_levels(c_1, c_2, m)
    torch.testing.assert_close(found.square().log1p(), expected.square().log1p(), rtol=0, atol=1e-5)


def test_iddpm_networks_are_told_the_place_in_the_table() -> None:
    preconditioner = IddpmPreconditioner()
    for dtype in (torch.float32, torch.float64):
        levels = iddpm_levels().to(dtype)
        c_noise = preconditioner.coefficients(levels).c_noise
        assert c_noise.dtype == dtype
        assert c_noise.tolist() == list(range(1000))


def test_iddpm_rounds_to_the_nearest_level() -> None:
    levels = iddpm_levels()
    g = torch.Generator().manual_seed(0)
    sigma = torch.rand((4, 50), generator=g, dtype=torch.float64).mul(12).sub(6).exp()
    nearest = levels[(sigma[..., None] - levels).abs().argmin(-1)]
    preconditioner = IddpmPreconditioner()
    found = preconditioner.round_sigma(sigma)
    torch.testing.assert_close(found, nearest, rtol=0, atol=0)
    assert torch.equal(preconditioner.round_sigma(found), found)


@pytest.mark.parametrize(
    ("preconditioner", "lowest", "highest"),
    [
        (EdmPreconditioner(), 0.0, math.inf),
        (FlowPreconditioner(), 0.0, math.inf),
        (VpPreconditioner(), math.sqrt(math.expm1(1e-6)), math.sqrt(math.expm1(10.05))),
        (VePreconditioner(), 0.02, 100.0),
        (IddpmPreconditioner(), float(iddpm_levels()[0]), float(iddpm_levels()[-1])),
    ],
)
def test_levels_are_kept_to_the_range_of_training(preconditioner, lowest, highest) -> None:
    assert preconditioner.sigma_range() == pytest.approx((lowest, highest), rel=1e-3)
    inside = torch.tensor([0.5], dtype=torch.float64)
    assert preconditioner.round_sigma(inside).item() == pytest.approx(0.5, rel=0.01)


def test_a_table_that_would_fill_the_memory_is_refused() -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "m"):
        IddpmPreconditioner(m=10**9)


TABLE = (0.1, 0.2, 0.75, 3.0)


def test_a_table_replaces_the_formula() -> None:
    preconditioner = IddpmPreconditioner(m=4, table=TABLE)
    assert list(preconditioner.check({})) == []
    for dtype in (torch.float32, torch.float64):
        sigma = torch.tensor([0.01, 0.16, 0.5, 1.0, 99.0], dtype=dtype)
        levels = torch.tensor([0.1, 0.2, 0.75, 0.75, 3.0], dtype=dtype)
        assert torch.equal(preconditioner.round_sigma(sigma), levels)
        assert preconditioner.coefficients(sigma).c_noise.tolist() == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("m", "table", "key"),
    [
        (5, TABLE, ("table",)),
        (4, (0.1, 0.2, 0.2, 3.0), ("table", 2)),
        (4, (0.1, 0.2, 0.15, 3.0), ("table", 2)),
    ],
)
def test_an_invalid_table_is_reported(m, table, key) -> None:
    (problem,) = IddpmPreconditioner(m=m, table=table).check({})
    assert (problem.key, problem.code) == (key, Code.CONFLICT)


def test_levels_of_a_table_are_above_0() -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "table"):
        IddpmPreconditioner(m=4, table=(0.0, *TABLE[1:]))


def test_a_table_becomes_a_tensor_once(monkeypatch) -> None:
    """Making a tensor of 1,000 numbers takes as long as the formula, 0.1 ms."""
    sigma = torch.tensor([0.5, 3.0])
    preconditioner = IddpmPreconditioner(m=4, table=TABLE)
    expected = preconditioner.round_sigma(sigma)
    monkeypatch.setattr(torch, "tensor", None)
    assert torch.equal(preconditioner.round_sigma(sigma), expected)


@pytest.mark.parametrize("settings", [{"m": 4, "table": TABLE}, {}])
def test_a_denoiser_with_a_table_compiles(settings) -> None:
    """As it is: nothing is computed before, as by a call that is not compiled."""
    sigma = torch.tensor([0.01, 0.16, 0.5, 1.0, 99.0])
    compiled, plain = (
        Preconditioned(Known(torch.ones(5, 3)), IddpmPreconditioner(**settings)) for _ in range(2)
    )
    compiled.compile(backend="aot_eager", fullgraph=True)
    found = compiled(torch.ones(5, 3), sigma)
    torch.testing.assert_close(found, plain(torch.ones(5, 3), sigma))


def test_levels_of_iddpm_do_not_depend_on_torchs_defaults() -> None:
    expected = iddpm_levels()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            levels, preconditioner = iddpm_levels(), IddpmPreconditioner(m=4, table=TABLE)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(levels, expected)
    assert preconditioner.sigma_range() == (TABLE[0], TABLE[-1])


def test_a_range_of_ve_that_is_none_is_reported() -> None:
    (problem,) = VePreconditioner(sigma_min=3.0, sigma_max=2.0).check({})
    assert problem.key == ("sigma_min",)
    assert list(VePreconditioner().check({})) == []
