from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad
from torch import nn

import genkit
from genkit.errors import Code, DataError, SettingError
from genkit.plugin.manager import load_plugins
from genkit.recipe.decode import component
from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics.curvature import Curvature
from genkit_metrics.straightness import Straightness
from genkit_metrics.truncation import Truncation
from raising import raises_code

S = 0.5  # standard deviation of the Gaussian data
TOP = 80.0


def subject(denoiser, labels=None, shape=(2, 3, 1)):
    samples = Batch(torch.zeros(4, *shape), labels)
    return subject_of(None, samples, samples, denoiser)


def starts(curvature, context, subject):
    """Unit noise of the trajectories, as the metrics draw it."""
    return torch.cat(
        [
            next(curvature.solve(subject, context, indices, curvature.schedule)).x / TOP
            for indices in curvature.batches()
        ]
    )


def slope_minus_chord(sigma: float) -> float:
    """For Gaussian data, by the exact x(sigma) = x(80) sqrt((s^2 + sigma^2) / (s^2 + 80^2)).

    In units of the start's noise.
    """
    top = math.hypot(S, TOP)
    slope = TOP * sigma / (math.hypot(S, sigma) * top)
    chord = 1 - S / top
    return slope - chord


def test_curvature_of_gaussian_data(fake_context, edm_like, exact_gaussian, gaussian_denoiser):
    metric = Curvature(solver=exact_gaussian, schedule=edm_like, count=300)
    seen, context = subject(gaussian_denoiser), fake_context()
    noise = starts(metric, context, seen)
    assert noise.shape == (300, 2, 3, 1)
    power = float(noise.square().flatten(1).sum(1).mean())
    assert power == pytest.approx(6, rel=0.1)

    found = metric.measure(seen, context)
    curve = found.curves["curvature"]
    assert curve.log_x
    assert curve.x == tuple(edm_like.sigmas()[:-1].tolist())
    wanted = [power * slope_minus_chord(sigma) ** 2 for sigma in curve.x]
    assert curve.y == pytest.approx(wanted, rel=1e-3, abs=1e-7)
    # Each trajectory is its start times the same factors, so that the spread is that of |noise|^2.
    spread = float(noise.square().flatten(1).sum(1).std(correction=0))
    assert spread == pytest.approx(math.sqrt(12), rel=0.2)
    assert curve.spread == pytest.approx([y * spread / power for y in wanted], rel=1e-3, abs=1e-7)

    low, high = math.log(0.002), math.log(TOP)
    mean = quad(lambda u: power * slope_minus_chord(math.exp(u)) ** 2, low, high)[0] / (high - low)
    # The mean is over log sigma: over the schedule's own steps it would be 39 % lower.
    assert found.scores == {"curvature": pytest.approx(mean, rel=2e-3)}
    assert sum(curve.y) / len(curve.y) != pytest.approx(mean, rel=0.05)


def test_defaults_are_a_64_step_heun_solution(fake_context, gaussian_denoiser):
    registry = load_plugins().registry
    curvature = component(registry, "metric", {"use": "curvature"})
    truncation = component(registry, "metric", {"use": "truncation"})
    for metric in (curvature, truncation):
        assert metric.count == 256
        assert registry.name_of(metric.solver) == "heun"
        sigmas = metric.schedule.sigmas()
        assert sigmas[[0, 63, 64]].tolist() == pytest.approx([80, 0.002, 0])
    seen, context = subject(gaussian_denoiser), fake_context()
    noise = starts(curvature, context, seen).flatten(1)
    found = curvature.measure(seen, context).scores["curvature"]
    power = float(noise.square().sum(1).mean())
    assert found == pytest.approx(0.38533 * power, rel=5e-3)  # the mean of the test above
    few, many = (
        heun_factor(replace(truncation.schedule, steps=steps).sigmas().tolist())
        for steps in (5, 64)
    )
    assert truncation.scores == ("truncation_5", "truncation_9", "truncation_18")
    found = truncation.measure(seen, context).scores["truncation_5"]
    assert found == pytest.approx(TOP * abs(few - many) * float(noise.norm(dim=1).mean()), rel=1e-5)


def heun_factor(sigmas):
    """What Heun's method multiplies the start by, for Gaussian data; the last step is Euler's."""
    factor = 1.0
    for now, then in itertools.pairwise(sigmas):
        first, second = (sigma / (S**2 + sigma**2) for sigma in (now, then))
        middle = 1 + (then - now) * first
        factor *= 1 + (then - now) / 2 * (first + second * middle) if then else middle
    return factor


@pytest.mark.parametrize("metric", [Curvature, Straightness])
def test_paths_to_a_single_point_are_straight(
    fake_context, edm_like, plain_euler, point_denoiser, metric
):
    metric = metric(solver=plain_euler, schedule=edm_like, count=5)
    found = metric.measure(subject(point_denoiser), fake_context())
    assert found.scores == {metric.scores[0]: pytest.approx(0, abs=1e-9)}


def straightness_of_gaussian_data(top):
    """Of a unit start, by integrating |(Z_1 - Z_0) - dZ/dt|^2 for the exact Z in 1-D."""
    scale = top / math.hypot(S, top)

    def path(time):
        sigma = time / (1 + 1 / top - time)
        return scale * math.hypot(S, sigma) / (1 + sigma)

    def deviation(time, step=1e-6):
        return path(1) - path(0) - (path(time + step) - path(time - step)) / (2 * step)

    return quad(lambda time: deviation(time) ** 2, 0, 1)[0]


def test_straightness_of_gaussian_data(fake_context, edm_like, exact_gaussian, gaussian_denoiser):
    metric = Straightness(solver=exact_gaussian, schedule=edm_like, count=300)
    seen, context = subject(gaussian_denoiser), fake_context()
    squares = starts(metric, context, seen).square().flatten(1).sum(1)
    power = float(squares.mean())
    found = metric.measure(seen, context)
    wanted = straightness_of_gaussian_data(TOP)
    assert found.scores == {"straightness": pytest.approx(power * wanted, rel=5e-3)}
    # In the limit of large sigma_max the integral is elementary.
    assert straightness_of_gaussian_data(1e5) == pytest.approx(S * (2 - math.pi / 2), rel=1e-4)

    curve = found.curves["straightness"]
    assert curve.x[0] == 1
    assert curve.x[-1] == pytest.approx(0.002, rel=0.02)
    share = float(squares.std(correction=0)) / power
    assert curve.spread == pytest.approx([share * y for y in curve.y], rel=1e-4)


def test_truncation_of_gaussian_data(fake_context, edm_like, plain_euler, gaussian_denoiser):
    metric = Truncation(solver=plain_euler, schedule=edm_like, count=300, steps=[3, 5, 20])
    seen, context = subject(gaussian_denoiser), fake_context()
    noise = starts(metric, context, seen)

    def factor(steps):
        """What Euler multiplies the start by: each step is linear in x."""
        sigmas = replace(edm_like, steps=steps).sigmas()
        rates = sigmas[:-1] / (S**2 + sigmas[:-1].square())
        return float((1 + sigmas.diff() * rates).prod())

    norms = noise.flatten(1).norm(dim=1)
    factors = [TOP * abs(factor(steps) - factor(64)) for steps in (3, 5, 20)]
    wanted = [each * float(norms.mean()) for each in factors]
    found = metric.measure(seen, context)
    assert wanted[1] > 0.05
    assert list(found.scores) == ["truncation_3", "truncation_5", "truncation_20"]
    assert list(found.scores.values()) == pytest.approx(wanted, rel=1e-4)
    curve = found.curves["truncation"]
    assert curve.x == (3, 5, 20)
    assert curve.y == tuple(found.scores.values())
    deviation = float(norms.std(correction=0))
    assert curve.spread == pytest.approx([each * deviation for each in factors], rel=1e-3)
    assert curve.log_x
    assert curve.log_y


def test_truncation_is_zero_for_an_exact_solver(
    fake_context, edm_like, exact_gaussian, gaussian_denoiser
):
    metric = Truncation(solver=exact_gaussian, schedule=edm_like, count=5)
    found = metric.measure(subject(gaussian_denoiser), fake_context())
    assert found.scores["truncation_5"] == pytest.approx(0, abs=1e-12)


def test_both_metrics_and_all_counts_start_from_the_same_noise(
    fake_context, edm_like, plain_euler, gaussian_denoiser
):
    parts = {"solver": plain_euler, "schedule": edm_like}
    seen = subject(gaussian_denoiser)
    many = starts(Curvature(count=300, **parts), fake_context(), seen)
    few = starts(Truncation(count=7, **parts), fake_context(), seen)
    other = starts(Truncation(count=7, **parts), fake_context(seed=1), seen)
    torch.testing.assert_close(many[:7], few)
    assert not torch.equal(few, other)
    assert len(torch.unique(many[:, 0, 0, 0])) == 300


def test_labels_of_the_samples_are_counted_around(
    fake_context, edm_like, plain_euler, point_denoiser
):
    labels = torch.tensor([0, 1, 1, 0])
    metric = Curvature(solver=plain_euler, schedule=edm_like, count=6)
    (indices,) = metric.batches()
    states = list(metric.solve(subject(point_denoiser, labels), fake_context(), indices, edm_like))
    ends = states[-1].x.mean(dim=(1, 2, 3))
    assert ends.tolist() == pytest.approx([1, -1, -1, 1, 1, -1])


class NotANumber(nn.Module):
    def forward(self, x, sigma, labels):
        return torch.where(sigma.reshape(-1, 1, 1, 1) < 1, torch.nan, x)


@pytest.mark.parametrize("metric", [Curvature, Straightness, Truncation])
def test_values_that_are_not_finite_are_named(fake_context, edm_like, plain_euler, metric):
    with raises_code(DataError, Code.NOT_FINITE, "nan"):
        metric(solver=plain_euler, schedule=edm_like, count=2).measure(
            subject(NotANumber()), fake_context()
        )


@pytest.mark.parametrize("metric", [Curvature, Truncation])
@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"s_churn": 1.0}, "must be deterministic"), ({"path": "vp"}, "from 0.5 to 80")],
)
def test_a_solver_that_cannot_follow_the_schedule_is_a_problem(metric, settings, reason):
    schedule = genkit.component("schedule", "edm", steps=64, sigma_min=0.5)
    solver = genkit.component("solver", "heun", **settings)
    (problem,) = metric(solver=solver, schedule=schedule).check({})
    assert problem.key == ("solver",)
    assert reason in problem.reason


def test_impossible_numbers_of_steps_are_problems(edm_like, plain_euler):
    parts = {"solver": plain_euler, "schedule": edm_like}
    assert not list(Curvature(**parts).check({}))
    assert not list(Truncation(**parts).check({}))
    (problem,) = Curvature(solver=plain_euler, schedule=replace(edm_like, steps=1)).check({})
    assert problem.key == ("schedule", "steps")
    (problem,) = Truncation(steps=[5, 64], **parts).check({})
    assert problem.key == ("steps", 1)
    assert problem.hint == "write a value below 64"
    for steps, code in (([], Code.WRONG_LENGTH), ([9, 5], Code.OUT_OF_RANGE)):
        (problem,) = Truncation(steps=steps, **parts).check({})
        assert (problem.key, problem.code) == (("steps",), code)
    assert [p.code for p in Truncation(steps=[5, 5], **parts).check({})] == [Code.OUT_OF_RANGE]


def test_a_single_number_of_steps_is_written_as_a_list():
    with pytest.raises(SettingError) as caught:
        genkit.component("metric", "truncation", steps=5)
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == (Code.WRONG_TYPE, "write [5]")
