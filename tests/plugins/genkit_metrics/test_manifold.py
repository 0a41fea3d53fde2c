from __future__ import annotations

import torch

from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.testing import subject_of
from genkit.types import Batch
from genkit_metrics.extractors import Pixels
from genkit_metrics.manifold import Prdc
from genkit_metrics.neighbors import manifold_scores
from raising import raises_code


def test_the_scores_are_those_of_samples_against_real_items(fake_context):
    draw = generator(0, "items")
    samples, real = 0.6 * torch.randn(80, 4, generator=draw), torch.randn(90, 4, generator=draw)
    subject = subject_of(fake_context(), Batch(samples), Batch(real))
    found = Prdc(neighbors=3, extractor=Pixels()).measure(subject, fake_context())
    wanted = manifold_scores(real, samples, 3, torch.device("cpu"))
    assert found.scores == {f"{name}_pixels": score for name, score in wanted.items()}
    # Samples that vary too little look like data, and do not cover it.
    assert wanted["recall"] < wanted["coverage"] < wanted["precision"]


def test_too_few_items_for_the_neighbors_are_refused(fake_context):
    few, enough = torch.rand(5, 2, generator=generator(0)), torch.rand(6, 2, generator=generator(1))
    Prdc(extractor=Pixels()).measure(
        subject_of(fake_context(), Batch(enough), Batch(enough)), fake_context()
    )
    for sets in ((few, enough), (enough, few)):
        subject = subject_of(fake_context(), *map(Batch, sets))
        with raises_code(DataError, Code.WRONG_LENGTH, 6):
            Prdc(extractor=Pixels()).measure(subject, fake_context())
