"""Measure the time, network calls and floating-point operations that samples cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from genkit.artifacts import Record, Samples, SamplingCost
from genkit.interfaces import Context, SamplingStage, Trained
from genkit.machine import hardware
from genkit.parts.flops import FlopCount, counting_flops
from genkit.world import SINGLE_PROCESS


@dataclass(frozen=True)
class _Arithmetic:
    """Network calls and floating-point operations of one sample.

    Attributes:
        nfe: number of calls of the denoiser.
        guidance_nfe: number of calls of guidance networks, as counted by the guidance.
        calls: map from the id of a network's stage to the number of its calls.
        flops: floating-point operations of all networks; 0 if unknown.
        call_flops: floating-point operations of one call of the denoiser; 0 if unknown.
    """

    nfe: float
    guidance_nfe: float
    calls: Mapping[str, float]
    flops: float
    call_flops: float


class CostMeter:
    """Measures the cost of the samples of a stage.

    On construction, rank 0 draws one extra sample to count its operations. This does not affect
    the samples of the stage. Each ``with`` block of :meth:`drawing` is timed::

        meter = CostMeter(self, context)
        with meter.drawing(self.count):
            samples = self.draw(context)
        context.record.save(samples)
        context.record.cost(meter.cost(samples))

    Args:
        stage: stage that draws the samples.
        context: context of the running stage, which may differ from ``stage``, as in a sweep.
    """

    def __init__(self, stage: SamplingStage, context: Context) -> None:
        self._stage, self._context = stage, context
        self._seconds, self._images = 0.0, 0
        self._notes: list[str] = []
        # Counted before anything is timed, which also warms up kernels and the memory allocator.
        self._one = self._counted() if context.world.is_main else None

    def _counted(self) -> _Arithmetic | None:
        """Draw one sample and return the count of its operations; None if this fails."""
        try:
            with counting_flops() as count, ExitStack() as hooks:
                watched = _Watched(self._context, count, hooks)
                sample = replace(self._stage, count=1).draw(cast(Context, watched))
        except Exception as error:  # noqa: BLE001, the stage reports its own errors when it draws
            self._notes.append(f"operations are not counted: {type(error).__name__}: {error}")
            return None
        if count.uncounted:
            names = ", ".join(count.uncounted)
            self._notes.append(f"the operations of these operators are not counted: {names}")
        if not count.total:
            self._notes.append("PyTorch could not count the operations of any operator")
        calls, name = watched.calls, sample.denoiser or ""
        own = watched.flops[name] / calls[name] if calls[name] else 0.0
        if count.total and not own:
            self._notes.append("the operations of one call of the denoiser are unknown")
        return _Arithmetic(sample.nfe, sample.guidance_nfe, dict(calls), count.total, own)

    @contextmanager
    def drawing(self, count: int) -> Iterator[None]:
        """Time a block in which this process draws ``count`` samples and copies them to the CPU."""
        begun = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begun
        self._images += count

    def gather(self) -> None:
        """Sum the times of all ranks. Collective; call it once."""
        timed = self._context.world.all_gather((self._seconds, self._images))
        self._seconds = sum(seconds for seconds, _ in timed)
        self._images = sum(images for _, images in timed)

    def cost(self, samples: Samples) -> SamplingCost:
        """Return the cost of the samples. Call it on rank 0 only, where operations are counted."""
        where = hardware(self._context.device)
        one = self._mean(samples)
        return SamplingCost(
            images=len(samples.batch),
            calls={name: _whole(count) for name, count in one.calls.items()},
            nfe_equivalents=one.flops / one.call_flops if one.flops and one.call_flops else None,
            gflop_per_image=one.flops / 1e9 if one.flops else None,
            gflop_per_call=one.call_flops / 1e9 if one.call_flops else None,
            seconds_per_image=self._seconds / self._images if self._images else None,
            images_timed=self._images,
            device=f"{where['device']}, {where['hardware']}",
            threads=torch.get_num_threads(),
            processes=self._context.world.size,
            batch_size=getattr(self._stage, "batch_size", None),
            notes=tuple(self._notes),
        )

    def _mean(self, samples: Samples) -> _Arithmetic:
        """Return calls and operations per sample, as means over all batches.

        If a solver chooses its steps, the number of calls differs between batches. The operations
        of the denoiser are scaled by its number of calls, and all others by the number of calls of
        guidance networks.
        """
        one, unknown = self._one, _Arithmetic(samples.nfe, samples.guidance_nfe, {}, 0, 0)
        if one is None:
            return unknown
        scale = samples.guidance_nfe / one.guidance_nfe if one.guidance_nfe else 1.0
        same = (one.nfe, one.guidance_nfe) == (samples.nfe, samples.guidance_nfe)
        typical = one.call_flops and (one.guidance_nfe or not samples.guidance_nfe)
        if not same and not typical:
            self._notes.append(
                "the number of network calls differs between the counted sample and the others"
            )
            return unknown
        rest = one.flops - one.nfe * one.call_flops
        calls = {
            name: samples.nfe + (count - one.nfe) * scale
            if name == samples.denoiser
            else count * scale
            for name, count in one.calls.items()
        }
        return replace(one, calls=calls, flops=samples.nfe * one.call_flops + rest * scale)


def _whole(count: float) -> float:
    """Return a number of calls, as an int if it is an integer."""
    return int(count) if float(count).is_integer() else count


class _Watched:
    """Context for counting: one process, which writes no files and reports no progress.

    Args:
        context: context of the stage.
        count: counter of operations.
        hooks: stack that removes the hooks of networks on exit.

    Attributes:
        calls: map from the id of a network's stage to the number of its calls.
        flops: map from the same ids to the floating-point operations of these calls, without
            backward passes.
    """

    world = SINGLE_PROCESS

    def __init__(self, context: Context, count: FlopCount, hooks: ExitStack) -> None:
        self.calls: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()
        self.record = Record("", context.folder, Samples, is_main=False)
        self._context, self._count, self._hooks = context, count, hooks
        self._seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def network(self, stage: str) -> Trained:
        """Return the network of a stage, with hooks that count its calls."""
        trained = self._context.network(stage)
        if stage not in self._seen:
            self._seen.add(stage)

            def begin(*_: object) -> None:
                self.flops[stage] -= self._count.total

            def end(*_: object) -> None:
                self.flops[stage] += self._count.total
                self.calls[stage] += 1

            for register, hook in (
                (trained.module.register_forward_pre_hook, begin),
                (trained.module.register_forward_hook, end),
            ):
                self._hooks.callback(register(hook).remove)
        return trained

    def advance(self, *position: object, **settings: object) -> None:
        """Report no progress."""

    def warn(self, text: str) -> None:
        """Print nothing."""

    def stop_requested(self) -> bool:
        """Return False, so that the sample is always completed."""
        return False
