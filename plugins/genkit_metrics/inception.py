"""Features for the FID: Inception-v3 with the weights published in 2015."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.files import expand_user, require_regular
from genkit.interfaces import Inputs, Stages
from genkit.parts.precision import network_precision
from genkit.settings import FilePath, setting
from genkit.tensors import file_digest
from genkit_metrics.image_network import ImageFeatures, ImageNetwork
from genkit_metrics.inception_v3 import InceptionV3

NAME = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{NAME}"
SIZE = 95_628_359
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

_REMEDY = f"write the path of {NAME}, or remove weights"


class InceptionFeatures(ImageFeatures):
    """Module that returns the features of Inception-v3, and the logits of these features."""

    network: InceptionV3

    def head(self, features: Tensor) -> Tensor:
        """Return the logits ``[B, 1008]`` of features ``[B, 2048]`` for the inception score.

        The bias of the last layer is omitted, as in the published inception score (Salimans et al.,
        arXiv 1606.03498).
        """
        with network_precision(features.device, "float32"):
            return F.linear(features, self.network.fc.weight)


@dataclass(frozen=True, kw_only=True)
class Inception(ImageNetwork):
    """The 2,048 features of Inception-v3; the Fréchet distance of these features is the FID.

    By default, torch-fidelity's file of 95 MB is downloaded once. It is stored in the folder
    ``checkpoints`` in the cache of ``torch.hub``, which torch-fidelity and torchmetrics also use.
    The SHA-256 of the file is verified.
    """

    source = "Heusel et al., arXiv 1706.08500; weights of torch-fidelity, converted from TensorFlow"
    label = "inception"
    classifies = True
    frechet = "fid"

    weights: FilePath | None = setting(None, doc=f"path of {NAME}; by default it is downloaded")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.weights is None:
            return
        try:
            file = expand_user(self.weights)
        except DataError as error:
            yield Problem(("weights",), str(error), _REMEDY, error.code)
            return
        if not file.is_file():
            yield Problem(
                ("weights",),
                f"must be an existing file, got {self.weights}",
                _REMEDY,
                Code.NOT_FOUND,
            )
        elif (digest := file_digest(file)) != SHA256:
            reason = f"must have the SHA-256 {SHA256}, got {digest}"
            yield Problem(("weights",), reason, _REMEDY, Code.WRONG_KIND)

    def bind(self, inputs: Inputs) -> nn.Module:
        file = _download() if self.weights is None else expand_user(self.weights)
        return InceptionFeatures(_network(file), self).to(inputs.device)

    def identity(self, inputs: Inputs) -> str:
        return f"inception sha256:{SHA256} {self.precision}"


def _network(file: Path) -> InceptionV3:
    """Return the network with the weights of the published file.

    Raises:
        DataError: the file cannot be read, or does not have the published SHA-256.
    """
    require_regular(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror}; {_REMEDY}", Code.IO_ERROR
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DataError(
            f"{file}: must have the SHA-256 {SHA256}, got {digest}; {_REMEDY}", Code.WRONG_KIND
        )
    with torch.device("meta"):  # initial weights would take time and change the random state
        network = InceptionV3()
    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    network.load_state_dict(weights, assign=True)
    return network


def _download() -> Path:
    """Return the path of the published file in the cache of torch.hub; download it if missing.

    Raises:
        DataError: the file cannot be downloaded or written.
    """
    pooch.get_logger().setLevel("WARNING")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=NAME, path=folder))
    except (OSError, ValueError) as error:  # OSError: connection or disk; ValueError: checksum
        raise DataError(
            f"{URL}: cannot be downloaded: {error}; download the file ({SIZE:,} bytes) elsewhere "
            f'and write its path: extractor = {{ use = "inception", weights = "{NAME}" }}',
            Code.DOWNLOAD,
        ) from error
