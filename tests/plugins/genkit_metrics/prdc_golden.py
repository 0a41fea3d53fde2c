"""Write the scores that other packages find for the items of `test_neighbors.py`.

    pip install prdc==0.2 torch-fidelity==0.4.0
    python tests/plugins/genkit_metrics/prdc_golden.py

Neither package is needed by the tests. `prdc` is that of the authors of density and coverage.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parents[2] / "data" / "prdc.json"

CASES = {  # items, samples, features, and what the samples are scaled and moved by
    "alike": (300, 250, 8, 1.0, 0.0),
    "narrow": (300, 400, 8, 0.5, 0.0),
    "wide": (200, 300, 16, 1.5, 0.0),
    "apart": (250, 250, 3, 1.0, 2.5),
}
NEIGHBORS = (1, 3, 5)


def items(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 real items and samples of a case."""
    real, fake, features, scale, shift = CASES[case]
    draw = np.random.RandomState(list(CASES).index(case))  # its numbers never change
    return draw.randn(real, features), draw.randn(fake, features) * scale + shift


def main() -> None:
    """Write the file."""
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    found = []
    for case in CASES:
        real, fake = items(case)
        for k in NEIGHBORS:
            scores = compute_prdc(real, fake, nearest_k=k)
            # From 0.4 on the generated items come first.
            precision, recall = calculate_precision_recall_full(
                torch.from_numpy(fake), torch.from_numpy(real), k
            )
            found.append(
                {
                    "case": case,
                    "neighbors": k,
                    "prdc": {name: float(score) for name, score in scores.items()},
                    "torch-fidelity": {"precision": precision, "recall": recall},
                }
            )
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
