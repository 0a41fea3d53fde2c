"""Power-function averages of the weights, and averages of any length made of them afterwards.

An average of relative length s over t images weighs the weights that training had after tau images
by ``(gamma + 1) tau^gamma / t^(gamma + 1)``: a power function, whose standard deviation is s t.
The right length is known only when training is over. Snapshots of a few averages, taken on the
way, span a space in which every other average is close to a linear combination of them.

Source: EDM2, arXiv 2312.02696, section 3 and appendix C.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from genkit import tensors
from genkit.errors import DataError

GREATEST_LENGTH = 12**-0.5
"""The relative length at which every moment of training weighs the same."""

_FILE = re.compile(r"ema-(?P<length>\d.*)-(?P<images>\d+)\.safetensors")

_AVERAGED, _AS_IT_IS = "averaged.", "as-it-is."
"""Prefixes of the tensors in a snapshot."""


def exponent(length: float) -> float:
    """Return gamma of the power function of a relative length.

    Args:
        length: standard deviation of the profile over its images, above 0 and at most 12^-0.5.

    Raises:
        DataError: the length is out of this range.
    """
    if not 0 < length <= GREATEST_LENGTH:
        raise DataError(
            f"{length} is no relative length of an average of weights; "
            f"write a value above 0 and at most {GREATEST_LENGTH:.4f}, such as 0.1"
        )
    # The variance (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = length^2 is a cubic in gamma with
    # one root from 0 on, the greatest.
    inverse = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


def decay(gamma: float, images: int, batch_size: int) -> float:
    """Return the weight of the old average in an update.

    Args:
        gamma: exponent of the average.
        images: seen before this batch; the first batch is followed at once.
        batch_size: images in this batch.
    """
    old: float = (images / (images + batch_size)) ** (gamma + 1)
    return old


def overlap(
    images: ArrayLike, exponents: ArrayLike, other_images: ArrayLike, other_exponents: ArrayLike
) -> NDArray[np.float64]:
    """Return the integrals of products of two profiles; arguments are broadcast.

    Args:
        images: at which the first averages end.
        exponents: gamma of the first averages.
        other_images: at which the second averages end.
        other_exponents: gamma of the second averages.
    """
    t, u, gamma, delta = (
        np.asarray(a, dtype=np.float64) for a in (images, other_images, exponents, other_exponents)
    )
    # Both are powers of tau up to the earlier end, and the earlier profile is 0 after it.
    earlier, later = np.minimum(t, u), np.maximum(t, u)
    of_later = np.where(t < u, delta, gamma)
    scale = (gamma + 1) * (delta + 1) / ((gamma + delta + 1) * later)
    product: NDArray[np.float64] = scale * (earlier / later) ** of_later
    return product


class PowerEma:
    """Averages of several relative lengths that follow a network in training.

    Args:
        model: the network, freshly initialised.
        lengths: relative lengths, such as 0.05 and 0.10.

    Raises:
        DataError: a length is out of range, or written twice.
    """

    def __init__(self, model: nn.Module, lengths: Sequence[float]) -> None:
        self._exponents = [exponent(length) for length in lengths]
        if len(set(lengths)) < len(lengths):
            raise DataError(f"the lengths {list(lengths)} of averages are not all different")
        self.lengths = tuple(lengths)
        self._averages = [
            {name: p.detach().clone() for name, p in _parameters(model).items()} for _ in lengths
        ]

    @torch.no_grad()
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        """Take one step towards the weights of ``model``.

        Args:
            model: after its optimizer step.
            images: seen before this batch.
            batch_size: images in this batch.
        """
        weights = list(_parameters(model).values())
        for gamma, average in zip(self._exponents, self._averages, strict=True):
            share = 1.0 - decay(gamma, images, batch_size)
            torch._foreach_lerp_(list(average.values()), weights, share)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors from which :meth:`restore` goes on, bit for bit."""
        return {
            f"{length!r}:{name}": tensor
            for length, average in zip(self.lengths, self._averages, strict=True)
            for name, tensor in average.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` returned.

        Raises:
            KeyError: the state is of other lengths or of another network.
        """
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def snapshot(self, folder: Path, model: nn.Module, images: int) -> None:
        """Write each average to a file of its own, such as ``ema-0.05-00012345600.safetensors``.

        Weights are written in float16. Its rounding changes them by 2e-4 of their norm, and what is
        reconstructed by 2e-4 to 1e-3; averages of different lengths differ by several percent.

        Args:
            folder: of the stage.
            model: the network, for its buffers, which are not averaged.
            images: seen so far, this batch included.
        """
        current = model.state_dict()
        for length, average in zip(self.lengths, self._averages, strict=True):
            halved = {name: _halved(tensor) for name, tensor in average.items()}
            buffers = {name: tensor for name, tensor in current.items() if name not in average}
            write_snapshot(folder, length, images, halved, buffers)


@dataclass(frozen=True)
class Snapshot:
    """An average that was written during training.

    Attributes:
        path: of its file.
        length: relative length of the average.
        images: number of images after which the average ends.
    """

    path: Path
    length: float
    images: int


def write_snapshot(
    folder: Path,
    length: float,
    images: int,
    averaged: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
) -> None:
    """Write an average to a file that :func:`snapshots_in` finds.

    Args:
        folder: folder in which the file is written.
        length: relative length of the average.
        images: number of images after which the average ends.
        averaged: averaged weights, of any floating type.
        buffers: all other tensors in the state of the network.
    """
    named = {_AVERAGED + name: tensor for name, tensor in averaged.items()}
    named |= {_AS_IT_IS + name: tensor for name, tensor in buffers.items()}
    tensors.save(folder / f"ema-{length!r}-{images:011d}.safetensors", named, {})


def snapshots_in(folder: Path) -> list[Snapshot]:
    """Return the snapshots in the folder of a stage, by images, then by length."""
    named = ((path, _FILE.fullmatch(path.name)) for path in folder.iterdir())
    found = [Snapshot(path, float(m["length"]), int(m["images"])) for path, m in named if m]
    return sorted(found, key=lambda s: (s.images, s.length))


def coefficients(snapshots: Sequence[Snapshot], length: float, images: int) -> NDArray[np.float64]:
    """Return the combination of snapshots nearest to an average; it sums to 1.

    Nearest in the squared difference of the profiles, integrated over training (algorithm 3).

    Args:
        snapshots: what is combined, no two alike.
        length: relative length of the average.
        images: number of images after which the average ends.

    Raises:
        DataError: the length is out of range.
    """
    t = np.array([s.images for s in snapshots], dtype=np.float64)
    gamma = np.array([exponent(s.length) for s in snapshots])
    gram = overlap(t[:, None], gamma[:, None], t, gamma)
    found = np.linalg.solve(gram, overlap(t, gamma, images, exponent(length)))
    normalized: NDArray[np.float64] = found / found.sum()
    return normalized


def reconstruct(snapshots: Sequence[Snapshot], length: float, images: int) -> dict[str, Tensor]:
    """Return the weights averaged over a relative length that need not have been tracked.

    Args:
        snapshots: of one training.
        length: relative length of the average.
        images: at which it ends; snapshots after it are left out.

    Returns:
        The state of the network: float32 weights, and buffers as the last snapshot has them.

    Raises:
        DataError: there is no snapshot up to ``images``, the length is out of range, a file is
            damaged, or the snapshots are of different networks.
    """
    used = [s for s in snapshots if s.images <= images]
    if not used:
        first = min((f"the first is of {s.images:,} images" for s in snapshots), default="none")
        raise DataError(f"no average of weights was written up to {images:,} images ({first})")
    shares = coefficients(used, length, images).tolist()
    with ExitStack() as stack:
        files = [_opened(stack, snapshot.path) for snapshot in used]
        state = {}
        for name in _common_names(used, files):
            if name.startswith(_AVERAGED):
                total = sum(
                    c * f.get_tensor(name).double() for c, f in zip(shares, files, strict=True)
                )
                state[name.removeprefix(_AVERAGED)] = total.float()
            else:
                state[name.removeprefix(_AS_IT_IS)] = files[-1].get_tensor(name)
    return state


def reconstruct_network(folder: Path, length: float) -> dict[str, Tensor]:
    """Return a trained network's weights, averaged over a relative length, up to the last snapshot.

    Args:
        folder: of the stage that trained it.
        length: relative length of the average, such as 0.08.

    Raises:
        DataError: as for :func:`reconstruct`, or the stage wrote no snapshots.
    """
    snapshots = snapshots_in(folder)
    if not snapshots:
        raise DataError(
            f"{folder} holds no averages of weights to reconstruct others from; "
            "train with ema_lengths = [0.05, 0.1] to write some"
        )
    return reconstruct(snapshots, length, snapshots[-1].images)


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained tensors by all of their names in the state of the network."""
    return dict(model.named_parameters(remove_duplicate=False))


def _halved(weights: Tensor) -> Tensor:
    """Return weights in float16, or as they are where that cannot hold them."""
    half = weights.half()
    return half if bool(half.isfinite().all()) else weights


def _opened(stack: ExitStack, path: Path) -> Any:
    try:
        return stack.enter_context(safetensors.safe_open(path, framework="pt"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from error


def _common_names(snapshots: Sequence[Snapshot], files: Sequence[Any]) -> list[str]:
    """Return the names of the tensors, which are the same of the same shapes in every file."""
    shapes = [{name: tuple(f.get_slice(name).get_shape()) for name in f.keys()} for f in files]  # noqa: SIM118
    for snapshot, found in zip(snapshots, shapes, strict=True):
        if found != shapes[0]:
            name = min(found.items() ^ shapes[0].items())[0]
            raise DataError(
                f"{snapshot.path} is of another network than {snapshots[0].path}: "
                f"{name} is {found.get(name, 'absent')} and {shapes[0].get(name, 'absent')}"
            )
    return list(shapes[0])
