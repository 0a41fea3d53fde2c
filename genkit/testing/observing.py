"""Contract tests of callbacks."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from genkit.designs import designs
from genkit.interfaces import Callback, Network, Stages, Trained, TrainingState
from genkit.random import seeded
from genkit.testing.laws import require, require_pure
from genkit.testing.workplace import workplace, writes_below
from genkit.types import DataSpec, Measurement


def check_callback(
    callback: Callback, network: Network, spec: DataSpec, earlier: Stages | None = None
) -> None:
    """Check every law of a callback.

    It accepts the training; returns finite scores and PNG files under the names that it declares;
    is a pure function, also when it is bound again; and writes no file.

    Args:
        callback: callback to check.
        network: network whose training it observes.
        spec: data of the training.
        earlier: stages to which the callback refers, by id; they are run once.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    with seeded(0):
        module = network.build(spec).eval().requires_grad_(False)
    trained = Trained(network, spec, module)
    seen = []
    with workplace(earlier) as place:
        problems = list(callback.check_training(trained, designs(place.stages, place.stages)))
        require(not problems, callback, "accepts-what-runs: check_training does", problems)
        context = place.holding(callback).single_process()
        with writes_below(callback, place.root), require_pure(callback), torch.no_grad():
            for _ in range(2):
                bound = callback.bind(context)
                for _ in range(2):
                    raw, averaged = (replace(trained, module=copy.deepcopy(module)) for _ in "ab")
                    seen.append(bound.call(TrainingState(64, 128, raw, averaged), context))
    for found in seen:
        law = "measurement: call returns a Measurement"
        require(isinstance(found, Measurement), callback, law, type(found).__name__)
        numbers = all(
            isinstance(value, float) and value - value == 0 for value in found.scores.values()
        )
        require(numbers, callback, "finite-scores: scores are finite numbers by name", found.scores)
        pictures = all(png.startswith(b"\x89PNG") for png in found.pictures.values())
        require(pictures, callback, "pictures: PNG files by name", list(found.pictures))
        given = {*found.scores, *found.pictures}
        law = "declared-names: the names that it states are among those of its scores and pictures"
        require(set(callback.names) <= given, callback, law, given)
    law = "same-again: the same training gives the same scores and pictures"
    require(all(found == seen[0] for found in seen), callback, law, seen)
