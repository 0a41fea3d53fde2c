"""Call callbacks during training, without changing a single bit of the trained weights."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from genkit.blame import fault, require_method
from genkit.errors import Code, DataError, GenkitError, InterruptedRun, UsageError
from genkit.interfaces import (
    BoundCallback,
    Callback,
    Context,
    FunctionCallback,
    Trained,
    TrainingState,
)
from genkit.plugin.registry import in_words
from genkit.types import Measurement
from genkit_stages.measuring import check_measurement

RESERVED_NAMES = frozenset(
    {
        "callback",
        "images",
        "loss",
        "loss-by-sigma",
        "loss_bound_by_sigma",
        "loss_by_sigma",
        "noises",
        "pairs",
        "pool",
        "warning",
    }
)
"""Names of columns and pictures of the stage ``train``, which a callback must not use."""

KEPT = 6
"""About the number of pictures of each name that are kept in a training run."""

_FLAGS = (
    (torch.backends.cuda.matmul, "fp32_precision"),
    (torch.backends.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
)


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Callbacks of a training run. Every rank has this object; only rank 0 calls the callbacks.

    Attributes:
        context: context of the stage.
        callbacks: callbacks in the order of the recipe. The functions of the caller's script,
            ``context.functions``, come after them.
        total: number of images of the whole training run.
        state: function that returns the current networks, which are copied for each call.
        settle: function that waits until no pool is being coupled in the background.
    """

    context: Context
    callbacks: Sequence[Callback]
    total: int
    state: Callable[[], TrainingState]
    settle: Callable[[], None]
    _bound: list[BoundCallback] = field(default_factory=list, repr=False)

    @property
    def _all(self) -> list[Callback | FunctionCallback]:
        return [*self.callbacks, *self.context.functions]

    def bind(self) -> None:
        """Bind the callbacks, which may read results of earlier stages; collective."""
        if self.callbacks and self.context.world.is_main:
            alone = self.context.single_process()
            with isolated(alone.device):
                for callback in self.callbacks:
                    self._bound.append(require_method(callback, callback.bind(alone), "call"))
        self.context.world.barrier()

    def due(self, images: int, count: int) -> list[int]:
        """Return the indices of the callbacks to call after a batch.

        Args:
            images: number of images seen, including the last batch.
            count: number of images of the last batch.
        """
        return [
            index
            for index, callback in enumerate(self._all)
            if is_due(self._every(callback), images, count, self.total)
        ]

    def _every(self, callback: Callback | FunctionCallback) -> int:
        return callback.every if isinstance(callback, Callback) else callback.every(self.total)

    def call(self, due: Sequence[int]) -> InterruptedRun | None:
        """Call the callbacks of these indices; collective.

        Returns:
            The stop that a function of the caller's script requested, after the other callbacks
            were called; None to continue.

        Raises:
            InterruptedRun: a callback was ended by Ctrl-C or by ``sys.exit``.
            KeyboardInterrupt: Ctrl-C was pressed again after a stop was requested.
            DataError: the result of a callback is invalid; the error names the callback and its
                plugin.
            UsageError: a function of the caller's script raised an error.
        """
        stop = None
        if self.context.world.is_main:
            self.settle()
            for index in due:
                try:
                    self._call(index)
                except InterruptedRun as error:
                    if isinstance(self._all[index], Callback):
                        raise
                    stop = error
        return self.context.world.broadcast(stop)

    def _call(self, index: int) -> None:
        """Call a callback with copies of the networks, and log its result."""
        callback, context, state = self._all[index], self.context, self.state()
        part: object = callback
        if isinstance(callback, FunctionCallback):
            name, part = callback.name, callback.function
        else:
            name = context.describe(callback)["use"]
        own = replace(state, network=_copy(state.network), averaged=_copy(state.averaged))
        row = {"images": state.images, "callback": name}
        try:
            with isolated(context.device):
                result = _check(part, self._result(index, own))
        except (KeyboardInterrupt, SystemExit) as error:
            # A second Ctrl-C stops a single process at once, as printed after the first. Rank 0 of
            # several processes must not call stop_requested alone, since it is collective.
            once_more = isinstance(error, KeyboardInterrupt) and context.world.size == 1
            if once_more and context.stop_requested():
                raise
            # Ctrl-C while a callback runs, or sys.exit in it. The networks are those of a whole
            # step, so the stage can save them as after any other stop.
            ended = f"callback {name} was ended by {in_words(error)} at {state.images:,} images"
            raise InterruptedRun(ended) from error
        except DataError as error:
            if error.code != Code.NOT_FINITE:
                raise
            context.warn(f"{name} at {state.images:,} images: {error}")
            context.record.log({**row, "warning": str(error)})
            return
        for warning in result.warnings:
            context.warn(f"{name}: {warning}")
        if result.scores:
            context.record.log({**row, **result.scores})
        kept = is_due(-(-self.total // KEPT), state.images, self._every(callback), self.total)
        for title, png in result.pictures.items():
            context.record.picture(title, png, state.images if kept else None)

    def _result(self, index: int, training: TrainingState) -> object:
        callback = self._all[index]
        if isinstance(callback, FunctionCallback):
            return _result_of(callback, training)
        return self._bound[index].call(training, self.context.single_process())


def is_due(every: int, images: int, count: int, total: int) -> bool:
    """Return whether a batch reached a multiple of ``every`` images, or the end of training.

    Args:
        every: interval in images, at least 1.
        images: number of images seen, including the batch.
        count: number of images of the batch.
        total: number of images of the whole training run.
    """
    return images >= total or images // every > (images - count) // every


def _copy(trained: Trained) -> Trained:
    """Return an uncompiled copy, so that the network in training keeps its compiled kernels."""
    module = copy.deepcopy(trained.module).eval().requires_grad_(False)
    return replace(trained, module=module)


def _result_of(function: FunctionCallback, training: TrainingState) -> object:
    """Return the result of a function of the caller's script.

    Raises:
        UsageError: the function raised an error, which is the cause of this one.
    """
    try:
        return function.call(training)
    except GenkitError:  # such as samples that are not finite, or a request to stop
        raise
    except Exception as error:
        raise UsageError(
            f"callback {function.name} raised {in_words(error)} at {training.images:,} images; "
            "correct the function, and call run_recipe again to resume from the saved state",
            Code.CALLBACK,
        ) from error


def _check(callback: object, result: object) -> Measurement:
    """Check the result of a callback, and return it.

    Raises:
        DataError: the result is invalid or not finite; the error names the callback and its plugin.
    """
    measurement = check_measurement(callback, result)
    names = measurement.scores.keys() | measurement.pictures.keys()
    if reserved := sorted(RESERVED_NAMES & names):
        raise fault(
            callback, f"must not return names of the stage train, got {', '.join(reserved)}"
        )
    for name, png in measurement.pictures.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or not isinstance(png, bytes):
            got = f"{name!r:.60} of type {type(png).__name__}"
            reason = f"must return pictures as bytes, with names of a-z, 0-9, - and _, got {got}"
            raise fault(callback, reason)
    return measurement


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Run a block with gradients disabled, and restore the global state that it may change.

    This state consists of the random states of Python, NumPy and PyTorch, the default dtype and the
    number of threads of PyTorch, and the precision and the choice of algorithms on NVIDIA GPUs.

    Args:
        device: training device.
    """
    # NumPy's legacy generator is included because third-party code may use it.
    numbers, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    flags = [getattr(holder, name) for holder, name in _FLAGS]
    on_gpu = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=on_gpu), torch.no_grad():
            yield
    finally:
        random.setstate(numbers)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for (holder, name), value in zip(_FLAGS, flags, strict=True):
            setattr(holder, name, value)
