"""Snapshots of power-function averages of weights, and reconstruction of other averages.

In an average of relative length s over t images, the weights after tau images have the factor
``(gamma + 1) tau^gamma / t^(gamma + 1)``. As a distribution of tau, this profile has the standard
deviation s t, which determines gamma. The optimal length is known only after training. An average
of any length is close to a linear combination of snapshots of a few averages, written in training.

Source: EDM2, arXiv 2312.02696, section 3 and appendix C.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genkit import tensors
from genkit.errors import Code, DataError
from genkit.parts.power_profile import exponent, overlap

MAX_ERROR = 0.5
"""Max relative L2 error of the profile of a combination. Chosen, not tuned.

At this error, most of the weight lies at other times than in the requested average. A single
snapshot of length 0.05 approximates length 0.08 with an error of 43 % and 0.1 with 69 %; eight
snapshots of two lengths approximate 0.08 with 1 %.
"""

_FILE = re.compile(r"ema-(?P<length>\d.*)-(?P<images>\d+)\.safetensors")

_AVERAGED, _AS_IT_IS = "averaged.", "as-it-is."
"""Prefixes of the names of averaged weights and of all other tensors in a snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """A file with an average of the weights, written during training.

    Attributes:
        path: path of the file.
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
        averaged: averaged weights by name, of any floating type.
        buffers: all other tensors in the state dict of the network, by name.
    """
    named = {_AVERAGED + name: tensor for name, tensor in averaged.items()}
    named |= {_AS_IT_IS + name: tensor for name, tensor in buffers.items()}
    tensors.save(folder / f"ema-{length!r}-{images:011d}.safetensors", named, {})


def snapshots_in(folder: Path) -> list[Snapshot]:
    """Return the snapshots in the folder of a stage, sorted by images, then by length."""
    named = ((path, _FILE.fullmatch(path.name)) for path in folder.iterdir())
    found = [Snapshot(path, float(m["length"]), int(m["images"])) for path, m in named if m]
    return sorted(found, key=lambda s: (s.images, s.length))


def coefficients(snapshots: Sequence[Snapshot], length: float, images: int) -> NDArray[np.float64]:
    """Return the coefficients of the combination of snapshots that is nearest to an average.

    They minimize the integral over training of the squared difference of the profiles (EDM2,
    algorithm 3), and are then normalized to sum 1.

    Args:
        snapshots: snapshots to combine, all different.
        length: relative length of the average.
        images: number of images after which the average ends.

    Returns:
        ``[len(snapshots)]`` coefficients.

    Raises:
        DataError: the length is out of range.
    """
    t, gamma = _profiles(snapshots)
    gram = overlap(t[:, None], gamma[:, None], t, gamma)
    solution = np.linalg.solve(gram, overlap(t, gamma, images, exponent(length)))
    normalized: NDArray[np.float64] = solution / solution.sum()
    return normalized


def profile_error(
    snapshots: Sequence[Snapshot], shares: NDArray[np.float64], length: float, images: int
) -> float:
    """Return the relative L2 distance between the profiles of a combination and an average.

    Args:
        snapshots: combined snapshots.
        shares: ``[len(snapshots)]`` coefficients of the combination.
        length: relative length of the average.
        images: number of images after which the average ends.
    """
    t, gamma = _profiles(snapshots)
    own = exponent(length)
    square = float(overlap(images, own, images, own))
    cross = float(shares @ overlap(t, gamma, images, own))
    combined = float(shares @ overlap(t[:, None], gamma[:, None], t, gamma) @ shares)
    return math.sqrt(max(square - 2 * cross + combined, 0.0) / square)


def _profiles(snapshots: Sequence[Snapshot]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers of images at which the averages end, and their exponents gamma."""
    ends = [float(s.images) for s in snapshots]
    return np.array(ends), np.array([exponent(s.length) for s in snapshots])


def reconstruct(
    snapshots: Sequence[Snapshot], length: float, images: int
) -> tuple[dict[str, Tensor], float]:
    """Return the weights of an average of any relative length.

    Args:
        snapshots: snapshots of one training run.
        length: relative length of the average.
        images: number of images after which the average ends; later snapshots are not used.

    Returns:
        State dict of the network, with float32 weights and the buffers of the last snapshot used;
        and the error of the combination, see :func:`profile_error`.

    Raises:
        DataError: there is no snapshot up to ``images``, the length is out of range or differs too
            much from all snapshots, a file is damaged, or the snapshots are of different networks.
    """
    used = [s for s in snapshots if s.images <= images]
    if not used:
        first = min((s.images for s in snapshots), default=None)
        got = "none" if first is None else f"the first after {first:,} images"
        raise DataError(
            f"an average of the weights must have been written in the first {images:,} images, got "
            f"{got}"
        )
    for snapshot in used:
        tensors.load(snapshot.path)  # checks the digest, with one file in memory at a time
    with ExitStack() as stack:
        files = [stack.enter_context(tensors.open_safetensors(snapshot.path)) for snapshot in used]
        names = _common_names(used, files)
        shares, error = _combination(used, length, images)
        state = {}
        for name in names:
            if name.startswith(_AVERAGED):
                total = sum(
                    c * f.get_tensor(name).double() for c, f in zip(shares, files, strict=True)
                )
                state[name.removeprefix(_AVERAGED)] = total.float()
            else:
                state[name.removeprefix(_AS_IT_IS)] = files[-1].get_tensor(name)
    return state, error


def _combination(
    snapshots: Sequence[Snapshot], length: float, images: int
) -> tuple[list[float], float]:
    """Return the coefficients of the combination nearest to an average, and its error.

    Raises:
        DataError: the length is out of range, or the error is above ``MAX_ERROR``.
    """
    shares = coefficients(snapshots, length, images)
    error = profile_error(snapshots, shares, length, images)
    if error > MAX_ERROR:
        lengths = ", ".join(map(str, sorted({s.length for s in snapshots})))
        raise DataError(
            "the length of the average must be close enough to those of the snapshots, got "
            f"{length} for {len(snapshots)} snapshots of lengths {lengths}, whose best combination "
            f"has an error of {error:.0%}; write a closer length, or use more snapshots"
        )
    return shares.tolist(), error


def reconstruct_network(folder: Path, length: float) -> tuple[dict[str, Tensor], float]:
    """Return the state dict and the error of :func:`reconstruct` for the end of a training run.

    Args:
        folder: folder of the stage that trained the network.
        length: relative length of the average, such as 0.08.

    Raises:
        DataError: as for :func:`reconstruct`, or the stage wrote no snapshots.
    """
    snapshots = snapshots_in(folder)
    if not snapshots:
        raise DataError(
            f"{folder} must contain snapshots of averages, got none; train with "
            'average = { use = "power-ema", lengths = [0.05, 0.1] }'
        )
    return reconstruct(snapshots, length, snapshots[-1].images)


def _common_names(snapshots: Sequence[Snapshot], files: Sequence[Any]) -> list[str]:
    """Return the names of the tensors; raise DataError unless all files have the same shapes."""
    shapes = [{name: tuple(f.get_slice(name).get_shape()) for name in f.keys()} for f in files]  # noqa: SIM118
    for snapshot, own in zip(snapshots, shapes, strict=True):
        if own != shapes[0]:
            name = min(own.items() ^ shapes[0].items())[0]
            raise DataError(
                f"{snapshot.path} must have the tensors of {snapshots[0].path}, got different "
                f"ones: {name} is {own.get(name, 'absent')} and {shapes[0].get(name, 'absent')}",
                Code.CONFLICT,
            )
    return list(shapes[0])
