"""The schedules of other papers, and what every schedule with a range refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genkit.errors import Code, DataError, SettingError
from genkit_edm.edm import EdmSchedule, LinearSchedule, LogLinearSchedule
from genkit_edm.flow import FlowSchedule
from genkit_edm.iddpm import IddpmSchedule, iddpm_levels
from genkit_edm.levels import RangeSchedule
from genkit_edm.ve import VeSchedule
from genkit_edm.vp import VpSchedule
from raising import raises_code

RANGES = [
    EdmSchedule(),
    LinearSchedule(),
    LogLinearSchedule(),
    VeSchedule(),
    VpSchedule(),
    IddpmSchedule(),
]
SCHEDULES = [*RANGES, FlowSchedule()]


def name(schedule: object) -> str:
    return type(schedule).__name__


def vp_sigma(t: Tensor, beta_d: float, beta_min: float) -> Tensor:
    """EDM, table 1: sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)."""
    return (torch.exp(beta_d * t**2 / 2 + beta_min * t) - 1).sqrt()


def test_linear_and_log_linear_are_even() -> None:
    gaps = LinearSchedule(steps=9).sigmas()[:-1].diff()
    torch.testing.assert_close(gaps, gaps[0].expand_as(gaps))
    ratios = LogLinearSchedule(steps=9).sigmas()[:-1].log().diff()
    torch.testing.assert_close(ratios, ratios[0].expand_as(ratios))


def test_edm_is_linear_at_rho_1() -> None:
    torch.testing.assert_close(EdmSchedule(rho=1).sigmas(), LinearSchedule().sigmas())


def test_ve_is_a_geometric_series_of_variances() -> None:
    n = 7
    expected = [100**2 * (0.02**2 / 100**2) ** (i / (n - 1)) for i in range(n)]
    found = VeSchedule(steps=n).sigmas()[:-1].square()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_vp_is_even_in_time() -> None:
    n = 7
    times = torch.linspace(1, 1e-3, n, dtype=torch.float64)
    sigmas = VpSchedule(steps=n).sigmas()[:-1]
    torch.testing.assert_close(sigmas, vp_sigma(times, 19.9, 0.1), rtol=1e-9, atol=0)


def test_vp_reaches_the_ends_of_any_range() -> None:
    sigmas = VpSchedule(steps=7, sigma_min=0.002, sigma_max=80.0).sigmas()
    assert sigmas[[0, -2]].tolist() == pytest.approx([80.0, 0.002])
    assert bool((sigmas.diff() < 0).all())


def test_iddpm_is_even_in_the_table() -> None:
    table = iddpm_levels().flip(0)
    inside = table[(table >= 0.002) & (table <= 81)]
    sigmas = IddpmSchedule(steps=12).sigmas()[:-1]
    places = [inside.tolist().index(level) for level in sigmas.tolist()]
    assert places == [round((len(inside) - 1) / 11 * i) for i in range(12)]
    assert list(IddpmSchedule(steps=len(inside)).check({})) == []


def test_flow_is_even_in_time_down_to_0() -> None:
    sigmas = FlowSchedule(steps=8).sigmas()
    t = sigmas / (1 + sigmas)
    torch.testing.assert_close(t, torch.linspace(1000 / 1001, 0, 9, dtype=torch.float64))


@pytest.mark.parametrize("schedule", RANGES, ids=name)
def test_a_range_that_is_none_is_reported(schedule: RangeSchedule) -> None:
    for low, high in ((90.0, 80.0), (5.0, 5.0)):
        (problem,) = replace(schedule, sigma_min=low, sigma_max=high).check({})
        assert (problem.key, problem.code) == (("sigma_min",), Code.CONFLICT)
        assert f"{low:g}" in problem.reason
        assert f"{high:g}" in problem.hint


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0, 0.0, 1e-300, 1e300])
def test_levels_that_float32_cannot_square_are_refused(schedule, wrong: float) -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "sigma_max"):
        replace(schedule, sigma_max=wrong)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_more_steps_than_sense_are_reported(schedule) -> None:
    (problem,) = replace(schedule, steps=10**12).check({})
    assert problem.key == ("steps",)
    assert problem.hint


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_defaults_are_allowed_and_one_step_goes_from_the_top(schedule) -> None:
    for steps in (1, 2, 18, 500):
        assert list(replace(schedule, steps=steps).check({})) == []
    top, end = replace(schedule, steps=1).sigmas().tolist()
    assert top == pytest.approx(schedule.sigma_max, rel=0.02)
    assert end == 0


@pytest.mark.parametrize("schedule", [LinearSchedule(), LogLinearSchedule(), EdmSchedule()])
def test_levels_that_fall_together_are_reported(schedule: RangeSchedule) -> None:
    narrow = replace(schedule, sigma_min=1.0, sigma_max=1.00001, steps=1000)
    (problem,) = narrow.check({})
    assert problem.key in {("steps",), ("rho",)}
    assert problem.code == Code.CONFLICT
    assert "to 1" in problem.reason


def test_a_range_without_vp_times_is_reported() -> None:
    (problem,) = VpSchedule(sigma_min=1.0, sigma_max=2.0).check({})
    assert (problem.key, problem.code) == (("sigma_min",), Code.CONFLICT)


def test_more_steps_than_the_table_has_levels_are_reported() -> None:
    (problem,) = IddpmSchedule(sigma_min=1.0, sigma_max=1.03, steps=18).check({})
    known = int(((iddpm_levels() >= 1) & (iddpm_levels() <= 1.03)).sum())
    assert (problem.key, problem.code) == (("steps",), Code.CONFLICT)
    assert f"{known} noise levels" in problem.reason
    assert f"{known}" in problem.hint


def test_a_range_between_two_levels_of_the_table_is_reported() -> None:
    schedule = IddpmSchedule(sigma_min=0.0065, sigma_max=0.0066)
    (problem,) = schedule.check({})
    assert "0 noise levels" in problem.reason
    with raises_code(DataError, Code.OUT_OF_RANGE, "0.0065", "0.0066"):
        schedule.sigmas()


@pytest.mark.parametrize("schedule", RANGES, ids=name)
def test_a_network_s_range_narrows_a_schedule(schedule: RangeSchedule) -> None:
    narrowed = schedule.within(0.1, 30.0)
    assert (narrowed.sigma_min, narrowed.sigma_max) == (0.1, 30.0)
    assert schedule.within(0.0, math.inf) == schedule


def test_a_network_s_range_lowers_the_start_of_flow() -> None:
    assert FlowSchedule().within(0.0, 30.0).sigma_max == 30
    assert FlowSchedule().within(0.0, math.inf) == FlowSchedule()
