"""The training objective of classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.errors import Code, DataError
from genkit.interfaces import Classifier, Objective
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    """Cross-entropy of the predicted class of clean images.

    The loss of an item is a single term, so Adam's epsilon is not scaled: 1e-8, torch's default.
    """

    source = "cross-entropy; the noise assigned to the images is not used"
    trains = Classifier
    requires = frozenset({"labels"})

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        if batch.labels is None:
            raise DataError(
                "classification requires labels, but the data has none; use labeled data",
                Code.MISSING_ATTRIBUTE,
            )
        return F.cross_entropy(model(batch.data).float(), batch.labels, reduction="none")
