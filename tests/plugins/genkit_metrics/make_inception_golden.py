"""Write tests/data/inception.safetensors: outputs of torch-fidelity's Inception, random weights.

Run from the root of the repository, where torch-fidelity and torchvision are installed::

    PYTHONPATH=.:plugins python tests/plugins/genkit_metrics/make_inception_golden.py

Weights and images are functions of their names, from uniform random numbers, which are the same on
every processor. The file holds every 32nd feature and every 16th logit.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[2] / "data" / "inception.safetensors"

SHAPES = {
    "colour": (3, 32, 32),
    "grey": (1, 28, 28),
    "wide": (3, 48, 64),
    "exact": (3, 299, 299),
    "larger": (3, 400, 310),
}
"""Shapes of the images, by the names of their vectors in the file."""


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return random numbers in [0, 1) that are a function of a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_weights(like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the names and shapes of a state; activations keep about their size."""
    weights = {}
    for name, tensor in like.items():
        u = uniform(name, tuple(tensor.shape))
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros((), dtype=torch.int64)
        elif tensor.ndim > 1:  # convolutions, as He et al., and the last layer
            weights[name] = (2 * u - 1) * math.sqrt(6 / tensor[0].numel())
        elif name.endswith(("bn.weight", "running_var")):
            weights[name] = 0.5 + u
        else:
            weights[name] = u - 0.5
    return weights


def random_image(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a uint8 image ``[1, *shape]``."""
    return (256 * uniform(name, (1, *shape))).to(torch.uint8)


def torch_fidelity(weights: Mapping[str, Tensor]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return torch-fidelity's network: uint8 images to features, logits without and with bias."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(dict(weights), file)
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased", "logits"],
            feature_extractor_weights_path=str(file),
        )

    def call(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found: tuple[Tensor, ...] = network(images.expand(-1, 3, -1, -1))
        return found

    return call


def selected(features: Tensor, unbiased: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Return the numbers that are kept."""
    kept = {"features": features[:, ::32], "unbiased": unbiased[:, ::16], "logits": logits[:, ::16]}
    return {name: values.contiguous() for name, values in kept.items()}


def main() -> None:
    """Write the file."""
    from safetensors.torch import save_file

    from genkit_metrics.inception_v3 import InceptionV3

    with torch.device("meta"):
        like = InceptionV3().state_dict()
    network = torch_fidelity(random_weights(like))
    vectors = {
        f"{name}.{kind}": values
        for name, shape in SHAPES.items()
        for kind, values in selected(*network(random_image(name, shape))).items()
    }
    save_file(vectors, GOLDEN)


if __name__ == "__main__":
    main()
