"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from genkit import interfaces, tensors
from genkit.testing import LawBroken, check_coupler
from genkit.types import Pairs


@dataclass(frozen=True, kw_only=True)
class Coupler(interfaces.Coupler):
    """Sound: noise number k meets image number k."""

    @property
    def preserves_conditional_prior(self):
        return frozenset({"labels", "sources"})

    def pair(self, batch, noise, generator):
        tensors.require_same_length(batch, noise)
        tensors.require_finite(batch.data, "image")
        tensors.require_finite(noise, "noise")
        return self.choose(batch, noise, generator)

    def choose(self, batch, noise, generator):
        index = torch.arange(len(batch))
        return Pairs(index, index)


class OnlyData(Coupler):
    def choose(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), torch.arange(max(len(batch) - 1, 1)))


class Int32(Coupler):
    def choose(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), torch.arange(len(batch)).int())


class OutOfRange(Coupler):
    def choose(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), torch.arange(len(batch)) + 1)


class Repeats(Coupler):
    def choose(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), torch.zeros(len(batch), dtype=torch.int64))


class Reversed(Coupler):
    def choose(self, batch, noise, generator):
        index = torch.arange(len(batch)).flip(0)
        return Pairs(index, index)


class Changes(Coupler):
    def choose(self, batch, noise, generator):
        noise += 1
        return super().choose(batch, noise, generator)


class GlobalDraw(Coupler):
    def choose(self, batch, noise, generator):
        torch.rand(())
        return super().choose(batch, noise, generator)


class Forgetful(Coupler):
    def choose(self, batch, noise, generator):
        with torch.random.fork_rng():
            torch.seed()
            return Pairs(torch.arange(len(batch)), torch.randperm(len(batch)))


class SkewsClass(Coupler):
    def choose(self, batch, noise, generator):
        order = noise.double().flatten(1).sum(1).argsort()
        rank = batch.data.double().flatten(1).sum(1).argsort().argsort()
        return Pairs(torch.arange(len(batch)), order[rank])


class Skews(SkewsClass):
    @property
    def bijective(self):
        return False

    def choose(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), noise.flatten(1).sum(1).argmax().repeat(len(batch)))


class Narrow(Coupler):
    """Computes in the type of its inputs."""

    def choose(self, batch, noise, generator):
        order = noise.flatten(1).square().sum(1).argsort(stable=True)
        return Pairs(torch.arange(len(batch)), order)


class Blind(Coupler):
    def pair(self, batch, noise, generator):
        tensors.require_same_length(batch, noise)
        tensors.require_finite(batch.data, "image")
        return self.choose(batch, noise, generator)


class Vague(Coupler):
    def pair(self, batch, noise, generator):
        if not (batch.data.isfinite().all() and noise.isfinite().all()):
            raise tensors.DataError("something is not finite")
        return super().pair(batch, noise, generator)


class Overflows(Coupler):
    def choose(self, batch, noise, generator):
        cost = batch.data.flatten(1).square().sum(1)
        return Pairs(torch.arange(len(batch)), cost.isinf().int().argsort(stable=True))


class Truncates(Coupler):
    def pair(self, batch, noise, generator):
        index = torch.arange(min(len(batch), len(noise)))
        return Pairs(index, index)


class Misnames(Coupler):
    @property
    def preserves_conditional_prior(self):
        return frozenset({"label"})


class NeedsLabels(Coupler):
    def choose(self, batch, noise, generator):
        if batch.labels is None:
            raise tensors.DataError("no labels")
        return super().choose(batch, noise, generator)


class AsksTooMuch(Coupler):
    @property
    def requires(self):
        return frozenset({"sources"})


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (OnlyData, "one length"),
        (Int32, "pairs.noise is an int64 vector"),
        (OutOfRange, "pairs.noise lies in 0 to 0"),
        (Repeats, "a permutation for the noise"),
        (Reversed, "arange for the data"),
        (Changes, "inputs are left as they are; seen: a changed noise"),
        (GlobalDraw, "from the given generator alone"),
        (Forgetful, "the same arguments and generator state"),
        (SkewsClass, "the paired noise given labels 0 has mean 0"),
        (Skews, "the paired noise has mean 0"),
        (Narrow, "float16 values give the pairs of the same values in float32"),
        (Blind, 'nan in noise 3 raises a DataError that says "noise 3"; seen: no error'),
        (Vague, 'says "image 3"; seen: something is not finite'),
        (Overflows, "a distance that overflows"),
        (Truncates, "refuses unlike numbers"),
        (Misnames, "names labels, sources, both or none"),
        (NeedsLabels, "a pool without labels is refused .*; seen: a DataError"),
        (AsksTooMuch, "a pool without sources is refused .*; seen: no DataError"),
    ],
)
def test_couplers(broken, law):
    check_coupler(Coupler())
    with pytest.raises(LawBroken, match=law):
        check_coupler(broken())


def test_a_coupler_that_minimises_nothing_is_found_out():
    class Worst(Coupler):
        def choose(self, batch, noise, generator):
            cost = tensors.pairwise_cost(batch.data, noise)
            return Pairs(torch.arange(len(batch)), (-cost).diagonal().argsort())

    with pytest.raises(LawBroken, match="is at most that of unpaired noise"):
        check_coupler(Worst(), minimises="euclidean")


def test_a_coupler_that_depends_on_the_order_is_found_out():
    class Greedy(Coupler):
        """Each image takes the nearest noise left, unless the total would grow."""

        def choose(self, batch, noise, generator):
            cost = tensors.pairwise_cost(batch.data, noise)
            left, chosen = cost.clone(), []
            for row in range(len(batch)):
                chosen.append(int(left[row].argmin()))
                left[:, chosen[-1]] = float("inf")
            index = torch.arange(len(batch))
            found = torch.tensor(chosen)
            return Pairs(index, found if cost[index, found].sum() < cost.trace() else index)

    with pytest.raises(LawBroken, match="does not depend on the order of the pool"):
        check_coupler(Greedy(), minimises="euclidean")
