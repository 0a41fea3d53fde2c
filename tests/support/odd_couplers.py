"""Couplers that each violate one contract, and valid couplers."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace

import torch

from genkit import interfaces, tensors
from genkit.artifacts import Samples
from genkit.errors import DataError
from genkit.types import Pairs


@dataclass(frozen=True, kw_only=True)
class Coupler(interfaces.Coupler):
    """Sound: noise number k meets image number k."""

    bijective = True

    @property
    def preserves_conditional_prior(self):
        return frozenset({"labels", "realness", "embeddings"})

    def pair(self, batch, noise, generator):
        tensors.require_same_length(batch, noise, self.noises_per_image)
        tensors.require_finite(batch.data, "image")
        tensors.require_finite(noise, "noise")
        return self.choose(batch, noise, generator)

    def choose(self, batch, noise, generator):
        index = torch.arange(len(batch))
        return Pairs(index, index)


class OnlyData(Coupler):
    def choose(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), torch.arange(max(len(batch) - 1, 1)))


class TooFew(Coupler):
    def choose(self, batch, noise, generator):
        index = torch.arange(max(len(batch) - 1, 1))
        return Pairs(index, index)


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
    bijective = False
    preserves_noise_marginal = True

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
        return frozenset({"realness"})


class IgnoresEmbeddings(Coupler):
    @property
    def requires(self):
        return frozenset({"embeddings"})

    def choose(self, batch, noise, generator):
        if batch.embeddings is None:
            raise DataError("no embeddings")
        return super().choose(batch, noise, generator)


class MainThreadOnly(Coupler):
    def choose(self, batch, noise, generator):
        index = torch.arange(len(batch))
        own = threading.current_thread() is threading.main_thread()
        return Pairs(index, index if own else index.flip(0))


PROCESS = "GENKIT_TEST_PROCESS"  # variable with the process that started the others


class ByProcess(Coupler):
    def choose(self, batch, noise, generator):
        index = torch.arange(len(batch))
        here = str(os.getpid())
        return Pairs(index, index.roll(int(os.environ.get(PROCESS, here) != here)))


class Ranked(SkewsClass):
    """Sound: images and noise are paired in the order of their sums."""

    preserves_conditional_prior = frozenset()


class CorrelatedAndIndependent(Ranked):
    independent = True


class PoolsAndScore(Ranked):
    preserves_score = True


class NegativeGap(Coupler):
    def choose(self, batch, noise, generator):
        return replace(super().choose(batch, noise, generator), gap=-0.1)


class TooMuchEntropy(Coupler):
    def choose(self, batch, noise, generator):
        return replace(super().choose(batch, noise, generator), entropy=1.1)


class PartsMissing(Coupler):
    def choose(self, batch, noise, generator):
        return replace(super().choose(batch, noise, generator), parts=(1,))


class PerClass(Coupler):
    """Sound: says that it parts the pool by labels, and moves no noise."""

    @property
    def requires(self):
        return frozenset({"labels"})

    def choose(self, batch, noise, generator):
        if batch.labels is None:
            raise DataError("no labels")
        index = torch.arange(len(batch))
        return Pairs(
            index,
            self.move(index),
            parts=tuple(batch.labels.unique(return_counts=True)[1].tolist()),
        )

    def move(self, index):
        return index


class Crosses(PerClass):
    def choose(self, batch, noise, generator):
        return replace(super().choose(batch, noise, generator), parts=(len(batch),))

    def move(self, index):
        return index.roll(1)


class Several(Coupler):
    """Sound: each image takes the first of its two noises."""

    bijective = False

    @property
    def noises_per_image(self):
        return 2

    def choose(self, batch, noise, generator):
        index = torch.arange(len(batch))
        return Pairs(index, 2 * index)


class SeveralAndBijective(Several):
    bijective = True


class TakesAll(Several):
    def choose(self, batch, noise, generator):
        index = torch.arange(len(noise))
        return Pairs(index // 2, index)


class NoNoise(Several):
    @property
    def noises_per_image(self):
        return 0


class BoundToNothing(Coupler):
    def bind(self, inputs):
        return None


class Refers(Coupler):
    asks = ("read", "fitted", Samples)

    def bind(self, inputs):
        assert inputs.device == torch.device("cpu")
        method, *arguments = self.asks
        return getattr(inputs, method)(*arguments)
