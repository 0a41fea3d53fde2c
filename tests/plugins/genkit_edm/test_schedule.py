from __future__ import annotations

import pytest
import torch

from genkit.errors import SettingError
from genkit_edm.edm import EdmSchedule, LogLinearSchedule


@pytest.mark.parametrize("steps", [2, 3, 18, 256])
@pytest.mark.parametrize("rho", [1.0, 7.0, 90.0])
def test_ends_and_order(steps: int, rho: float) -> None:
    sigmas = EdmSchedule(steps=steps, rho=rho).sigmas()
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert float(sigmas[0]) == pytest.approx(80.0, rel=1e-12)
    assert float(sigmas[-2]) == pytest.approx(0.002, rel=1e-12)
    assert float(sigmas[-1]) == 0.0
    assert bool((sigmas.diff() < 0).all())


def test_levels_follow_equation_5() -> None:
    n, rho, low, high = 5, 3.0, 0.01, 20.0
    sigmas = EdmSchedule(steps=n, rho=rho, sigma_min=low, sigma_max=high).sigmas()
    expected = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for i in range(n)
    ]
    torch.testing.assert_close(
        sigmas[:-1], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_a_single_step_goes_from_the_top_to_zero() -> None:
    assert EdmSchedule(steps=1).sigmas().tolist() == pytest.approx([80.0, 0.0])


@pytest.mark.parametrize("rho", [1e-3, 1e-300])
def test_a_rho_whose_powers_leave_float64_is_reported(rho: float) -> None:
    (problem,) = EdmSchedule(rho=rho).check({})
    assert problem.key == ("rho",)
    assert "must fall" in problem.reason
    assert "1 to 100" in problem.hint


def test_a_rho_at_which_rounding_moves_the_levels_is_refused() -> None:
    with pytest.raises(SettingError, match="rho"):
        EdmSchedule(rho=1e7)
    sigmas = EdmSchedule(rho=1e6).sigmas()
    torch.testing.assert_close(sigmas, LogLinearSchedule().sigmas(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("rho", [1, 7, 90])
def test_usual_settings_are_allowed(rho: float) -> None:
    for steps in (1, 14, 1000):
        assert list(EdmSchedule(rho=rho, steps=steps).check({})) == []


@pytest.mark.parametrize("setting", ["sigma_min", "sigma_max", "rho", "steps"])
def test_settings_must_be_positive(setting: str) -> None:
    with pytest.raises(SettingError, match=setting):
        EdmSchedule(**{setting: 0})
