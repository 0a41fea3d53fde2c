"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from genkit import interfaces, tensors
from genkit.artifacts import Samples
from genkit.errors import DataError
from genkit.settings import setting
from genkit.testing import check_coupler
from genkit.testing.elsewhere import SIZES, check_processes, is_serializable, serve
from genkit.types import Pairs
from odd_couplers import (
    PROCESS,
    AsksTooMuch,
    Blind,
    BoundToNothing,
    ByProcess,
    Changes,
    CorrelatedAndIndependent,
    Coupler,
    Crosses,
    Forgetful,
    GlobalDraw,
    IgnoresEmbeddings,
    Int32,
    MainThreadOnly,
    Misnames,
    Narrow,
    NeedsLabels,
    NegativeGap,
    NoNoise,
    OnlyData,
    OutOfRange,
    Overflows,
    PartsMissing,
    PerClass,
    PoolsAndScore,
    Ranked,
    Refers,
    Repeats,
    Reversed,
    Several,
    SeveralAndBijective,
    Skews,
    SkewsClass,
    TakesAll,
    TooFew,
    TooMuchEntropy,
    Truncates,
    Vague,
)
from raising import breaks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (OnlyData, "one-length"),
        (TooFew, "pair-per-noise; 1 pairs, 2 noise samples"),
        (Int32, "int64-on-cpu; pairs.noise"),
        (OutOfRange, "index-range; noise contains indices from 0 to 0"),
        (Repeats, "permutation"),
        (Reversed, "data-in-order"),
        (Changes, "leaves-inputs; noise was modified"),
        (GlobalDraw, "own-generator"),
        (Forgetful, "same-again"),
        (MainThreadOnly, "threads"),
        (SkewsClass, "noise-mean; noise given embeddings = 0"),
        (Skews, "noise-mean; the paired noise has"),
        (Narrow, "half-precision; float16"),
        (Blind, "refuses-not-finite; nan in noise 3"),
        (Vague, "refuses-not-finite; something is not finite"),
        (IgnoresEmbeddings, "refuses-not-finite; nan in embedding 3"),
        (Overflows, "overflow"),
        (Truncates, "refuses-counts"),
        (Misnames, "known-attributes; 'label'"),
        (NeedsLabels, "refuses-lacking; contains it; seen: a DataError"),
        (AsksTooMuch, "refuses-lacking; contains it; seen: no DataError"),
        (CorrelatedAndIndependent, "independence"),
        (PoolsAndScore, "score-by-kind"),
        (NegativeGap, "gap-range"),
        (TooMuchEntropy, "entropy-range"),
        (PartsMissing, "parts-sum"),
        (Crosses, "keeps-groups"),
        (SeveralAndBijective, "bijective-noises"),
        (TakesAll, "pair-per-noise; 2 pairs, 2 noise samples"),
        (NoNoise, "noises-per-image"),
        (BoundToNothing, "bound-method; pair"),
        (Refers, "needs-fit; 'fitted'"),
    ],
)
def test_couplers(broken, law):
    with breaks(law):
        check_coupler(broken(), another_process=False)


@pytest.mark.parametrize("sound", [Coupler(), PerClass(), Several(), Ranked()])
def test_sound_couplers(sound):
    check_coupler(sound, another_process=False)


@dataclass(frozen=True, kw_only=True)
class Around(Coupler):
    """Sound: what another coupler does, with settings of every sort."""

    inner: interfaces.Coupler = setting(Coupler(), doc="does it")
    names: tuple[str, ...] = setting(("a",), doc="of nothing")
    table: Mapping[str, Any] = setting({"b": 0.1}, doc="of nothing")

    def choose(self, batch, noise, generator):
        if (self.names, dict(self.table)) != (("x", "y"), {"z": 1e-3}):
            return Reversed().choose(batch, noise, generator)
        return self.inner.pair(batch, noise, generator)


def test_another_process(monkeypatch):
    monkeypatch.setenv(PROCESS, str(os.getpid()))
    rich = Around(inner=PerClass(), names=("x", "y"), table={"z": 1e-3})
    # Couplers are compared in their order: those before the broken one are alike.
    with breaks("processes; ByProcess()"):
        check_processes([Coupler(), replace(rich, inner=rich), ByProcess()])


def test_the_process_builds_what_it_is_told(monkeypatch, tmp_path):
    file = tmp_path / "elsewhere.py"
    file.write_text(f"from {__name__} import PerClass\n", encoding="utf-8")
    place = ["no_module_of_this_name", str(file), "PerClass"]
    told = [
        {"place": place, "settings": {}},
        {
            "place": [__name__, None, "Around"],
            "settings": {
                "inner": {"place": [__name__, None, "PerClass"], "settings": {}},
                "names": ["x", "y"],
                "table": {"table": {"z": 1e-3}},
            },
        },
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(told)))
    monkeypatch.setattr("sys.stdout", io.StringIO())
    serve()
    pairs = json.loads(sys.stdout.getvalue())
    assert pairs == 2 * [[2 * [list(range(size))] for size in SIZES]]
    assert sys.modules.pop("no_module_of_this_name").PerClass is PerClass
    absent = {"place": ["absent", None, "X"], "settings": {}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([absent])))
    with pytest.raises(ModuleNotFoundError, match="absent"):
        serve()


@pytest.mark.parametrize(
    "asks", [("network", "fitted"), ("read", "fitted", Samples), ("digest", "fitted")]
)
def test_a_stage_that_is_asked_for_is_told(asks):
    class Asks(Refers):
        pass

    Asks.asks = asks
    with breaks("needs-fit; bind reads 'fitted'"):
        check_coupler(Asks())


def test_what_fails_in_another_process_is_told():
    with breaks("processes; bind reads 'fitted'"):
        check_processes([Refers()])


def test_another_process_is_part_of_the_laws(monkeypatch):
    asked = []
    monkeypatch.setattr("genkit.testing.coupling.check_processes", asked.extend)
    check_coupler(ByProcess())
    check_coupler(Coupler(), another_process=False)
    assert asked == [ByProcess()]


def test_what_another_process_cannot_build_is_left_out():
    class Local(ByProcess):
        pass

    assert is_serializable(ByProcess())
    assert not is_serializable(Local())
    assert not is_serializable(Around(inner=Local()))
    check_coupler(Local())
    with pytest.raises(TypeError, match=r"cannot import .*Local"):
        check_processes([Local()])


@dataclass(frozen=True, kw_only=True)
class Nearest(interfaces.DatasetCoupler):
    """Needs to see the data before it pairs: each noise takes the nearest of all images."""

    def bind(self, inputs):
        raise AssertionError("pairs without fit")


class Fitted:
    def choose(self, data, noise, generator):
        tensors.require_finite(data.data, "image")
        return tensors.pairwise_cost(data.data, noise).argmin(dim=0)


class TooMany(Fitted):
    def choose(self, data, noise, generator):
        return super().choose(data, noise, generator).repeat(2)


def test_a_coupler_that_is_fitted_first():
    seen = []
    check_coupler(Nearest(), fit=lambda batch: seen.append(batch) or Fitted())
    assert seen
    with breaks("bound-method; fit returns an object with the method choose"):
        check_coupler(Nearest(), fit=lambda batch: None)
    with breaks("one-length"):
        check_coupler(Nearest(), fit=lambda batch: TooMany())


@dataclass(frozen=True, kw_only=True)
class NearestWithScore(Nearest):
    """Sound: the nearest image stays the same while the noise moves little."""

    preserves_noise_marginal = True
    preserves_score = True


class Jumps(Fitted):
    def choose(self, data, noise, generator):
        super().choose(data, noise, generator)
        return (noise.double().flatten(1).sum(1) * 1e5).long() % len(data)


def test_a_score_needs_data_that_is_constant_around_a_noise():
    check_coupler(NearestWithScore(), fit=lambda batch: Fitted())
    with breaks("score-in-cells"):
        check_coupler(NearestWithScore(), fit=lambda batch: Jumps())


class Optimal(Coupler):
    """Sound: the least total distance."""

    gap = None

    @property
    def preserves_conditional_prior(self):
        return frozenset()

    def choose(self, batch, noise, generator):
        cost = tensors.pairwise_cost(batch.data, noise)
        index, permutation = map(torch.from_numpy, linear_sum_assignment(self.price(batch, cost)))
        return Pairs(index, permutation, gap=self.gap)

    def price(self, batch, cost):
        return cost


class OptimalInClass(Optimal):
    """Sound: the least total distance inside each class."""

    @property
    def preserves_conditional_prior(self):
        return frozenset({"labels"})

    @property
    def requires(self):
        return frozenset({"labels"})

    def price(self, batch, cost):
        if batch.labels is None:
            raise DataError("no labels")
        return cost + 1e4 * (batch.labels[:, None] != batch.labels)


class Identity(Coupler):
    pass


class ClaimsOptimal(Identity):
    def choose(self, batch, noise, generator):
        return replace(super().choose(batch, noise, generator), gap=0.0)


class KnowsItsGap(Identity):
    def choose(self, batch, noise, generator):
        return replace(super().choose(batch, noise, generator), gap=1e6)


@pytest.mark.parametrize("sound", [Optimal(), OptimalInClass(), KnowsItsGap()])
def test_couplers_that_minimise(sound):
    check_coupler(sound, minimises="euclidean", another_process=False)


@pytest.mark.parametrize("broken", [Identity(), ClaimsOptimal()])
def test_a_total_above_the_least_is_found_out(broken):
    check_coupler(broken, another_process=False)
    with breaks("gap-holds"):
        check_coupler(broken, minimises="euclidean", another_process=False)


def test_crossing_a_class_is_found_out_where_the_total_is_least():
    class Boastful(OptimalInClass):
        def price(self, batch, cost):
            super().price(batch, cost)
            return cost

    with breaks("keeps-groups"):
        check_coupler(Boastful(), minimises="euclidean", another_process=False)


def test_a_coupler_that_minimises_nothing_is_found_out():
    class Worst(Coupler):
        def choose(self, batch, noise, generator):
            cost = tensors.pairwise_cost(batch.data, noise)
            return Pairs(torch.arange(len(batch)), (-cost).diagonal().argsort())

    with breaks("cost-falls"):
        check_coupler(Worst(), minimises="euclidean", another_process=False)


def test_a_coupler_that_depends_on_the_order_is_found_out():
    class Greedy(Coupler):
        """Each image takes the nearest noise left, unless the total would grow."""

        @property
        def bijective(self):
            return False  # what is bijective is found out by its total

        def choose(self, batch, noise, generator):
            cost = tensors.pairwise_cost(batch.data, noise)
            left, chosen = cost.clone(), []
            for row in range(len(batch)):
                chosen.append(int(left[row].argmin()))
                left[:, chosen[-1]] = float("inf")
            index = torch.arange(len(batch))
            found = torch.tensor(chosen)
            return Pairs(index, found if cost[index, found].sum() < cost.trace() else index)

    with breaks("order-of-pool"):
        check_coupler(Greedy(), minimises="euclidean", another_process=False)
