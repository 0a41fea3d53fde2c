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

    ``check_training`` yields no problem for the network. The callback returns finite scores and PNG
    files, including those in ``names``. It is a pure function, also after another ``bind``,
    and writes no file.

    Args:
        callback: callback to check.
        network: network whose training it observes.
        spec: shape and attributes of the training data.
        earlier: stages to which the callback refers, by id; they are run once.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    with seeded(0):
        module = network.build(spec).eval().requires_grad_(False)
    trained = Trained(network, spec, module)
    results = []
    with workplace(earlier) as place:
        problems = list(callback.check_training(trained, designs(place.stages, place.stages)))
        law = "accepts-what-runs: check_training yields no problem for a network that it observes"
        require(not problems, callback, law, problems)
        context = place.holding(callback).single_process()
        with writes_below(callback, place.root), require_pure(callback), torch.no_grad():
            for _ in range(2):
                bound = callback.bind(context)
                for _ in range(2):
                    raw, averaged = (replace(trained, module=copy.deepcopy(module)) for _ in "ab")
                    results.append(bound.call(TrainingState(64, 128, raw, averaged), context))
    for result in results:
        law = "measurement: call returns a Measurement"
        require(isinstance(result, Measurement), callback, law, type(result).__name__)
        numbers = all(
            isinstance(value, float) and value - value == 0 for value in result.scores.values()
        )
        require(numbers, callback, "finite-scores: every score is a finite float", result.scores)
        pictures = all(png.startswith(b"\x89PNG") for png in result.pictures.values())
        law = "pictures: every picture is the content of a PNG file"
        require(pictures, callback, law, list(result.pictures))
        returned = {*result.scores, *result.pictures}
        law = "declared-names: call returns a score or a picture for each name in `names`"
        require(set(callback.names) <= returned, callback, law, returned)
    law = "same-again: the same training state gives the same scores and pictures"
    require(all(result == results[0] for result in results), callback, law, results)
