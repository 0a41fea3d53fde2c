"""Power-function averages of the weights, with snapshots (EDM2, arXiv 2312.02696).

:mod:`genkit.parts.power_averages` reconstructs averages of any length from the snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import RunningAverage, Stages
from genkit.parts.power_averages import write_snapshot
from genkit.parts.power_profile import decay, exponent
from genkit.settings import setting
from genkit_optim.ema import Ema, RunningEma


@dataclass(frozen=True, kw_only=True)
class PowerEma(Ema):
    """Averages the weights like `ema`, and also writes snapshots of power-function averages.

    The stage `average` and `genkit export --ema-length` reconstruct networks of any averaging
    length from the snapshots.
    """

    source = "EDM2, arXiv 2312.02696, section 3 and appendix C"
    reconstructible = True

    lengths: tuple[float, ...] = setting(
        (0.05, 0.1),
        doc="relative lengths of the averages: standard deviation of the averaging profile "
        "divided by the training time",
    )
    snapshot_images: int = setting(
        8_000_000, doc="number of images between snapshots of the averages", at_least=1
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        if not self.lengths:
            reason = "must have at least one length, got none"
            yield Problem(("lengths",), reason, "use ema", Code.WRONG_LENGTH)
        for index, length in enumerate(self.lengths):
            try:
                exponent(length)
            except DataError as error:
                yield Problem(("lengths", index), str(error), code=Code.OUT_OF_RANGE)
            if length in self.lengths[:index]:
                reason = f"must differ from the other lengths, got {length} twice"
                yield Problem(("lengths", index), reason, "write it once", Code.DUPLICATE)

    def build(self, model: nn.Module) -> RunningAverage:
        return RunningPowerEma(self, model)


class RunningPowerEma(RunningEma):
    """The running state of an exponential and several power-function averages.

    Args:
        settings: settings of the averages.
        model: network in training, newly initialized.

    Raises:
        DataError: a length is out of range.
    """

    def __init__(self, settings: PowerEma, model: nn.Module) -> None:
        super().__init__(settings, model)
        self._averages = {
            length: {name: p.detach().clone() for name, p in _parameters(model).items()}
            for length in settings.lengths
        }
        self._exponents = {length: exponent(length) for length in settings.lengths}

    @torch.no_grad()
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        super().update(model, images, batch_size)
        weights = list(_parameters(model).values())
        for length, average in self._averages.items():
            share = 1.0 - decay(self._exponents[length], images, batch_size)
            torch._foreach_lerp_(list(average.values()), weights, share)

    def state(self) -> dict[str, Tensor]:
        return {
            f"{length!r}:{name}": tensor
            for length, average in self._averages.items()
            for name, tensor in average.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def snapshot(self, folder: Path, images: int) -> None:
        """Write each average to its own file, such as ``ema-0.05-00012345600.safetensors``.

        Weights are written in float16. Relative to their norm, rounding changes the weights by
        2e-4, and reconstructed weights by 2e-4 to 1e-3. In comparison, averages of different
        lengths differ by several percent.
        """
        current = self.model.state_dict()
        for length, average in self._averages.items():
            halved = {name: _to_float16(tensor) for name, tensor in average.items()}
            buffers = {name: tensor for name, tensor in current.items() if name not in average}
            write_snapshot(folder, length, images, halved, buffers)


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters, keyed by all of their names in the state dictionary."""
    return dict(model.named_parameters(remove_duplicate=False))


def _to_float16(weights: Tensor) -> Tensor:
    """Convert weights to float16, or return them unchanged if float16 would overflow."""
    half = weights.half()
    return half if bool(half.isfinite().all()) else weights
