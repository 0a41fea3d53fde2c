"""The features of the FID: Inception-v3 as published in 2015, through torch-fidelity.

torch-fidelity is an extra, and is imported where this extractor is used and nowhere else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, PluginError, Problem
from genkit.interfaces import Extractor, Inputs, Stages
from genkit.parts.packages import installing, missing_packages
from genkit.settings import setting
from genkit.tensors import encoded, file_digest

FEATURES = "2048"
"""What torch-fidelity calls the activations of the last pooling."""

NEEDED = ("torch_fidelity", "torchvision")
"""Modules of the extra ``fid``."""

_BROKEN = (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError)


class _Features(nn.Module):
    """Feeds images as 8 bits a channel, as saved images are in the published protocol."""

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise DataError(
                f"Inception looks at images of 3 channels, or grey ones, not at items of shape "
                f'{tuple(x.shape[1:])}; use another extractor, such as "pixels"'
            )
        seen = encoded(x).to(x.device).expand(-1, 3, -1, -1)
        (features,) = cast(Callable[[Tensor], tuple[Tensor]], self.inception)(seen)
        return features


@dataclass(frozen=True, kw_only=True)
class Inception(Extractor):
    """The 2,048 features of Inception-v3, in which the Frechet distance is the FID.

    Needs the extra ``fid``: ``pip install 'genkit-diffusion[fid]'``. Samples and real images are
    rounded to 8 bits a channel first. Without ``weights`` torch-fidelity's file of 95 MB is
    downloaded once, into the cache of ``torch.hub``.
    """

    source = "Heusel et al., arXiv 1706.08500; weights of torch-fidelity"
    score = "fid"

    weights: str | None = setting(
        None, doc="file of torch-fidelity's weights, where there is no network; downloaded"
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from missing_packages(NEEDED, "fid")
        if self.weights is not None and not Path(self.weights).expanduser().is_file():
            yield Problem(
                ("weights",),
                f"there is no file {self.weights}",
                "write the path of weights-inception-2015-12-05-6726825d.pth, or leave it out",
                Code.DATA,
            )

    def version(self) -> str:
        # The file that is downloaded is always the same: torch-fidelity's URL holds its hash.
        return "" if self.weights is None else file_digest(self._file())

    def bind(self, inputs: Inputs) -> nn.Module:
        published = _torch_fidelity()
        file = self._file()
        try:
            # torch-fidelity unpickles without limits: first see that nothing but tensors is there.
            torch.load(file, map_location="cpu", weights_only=True)
            inception = published.FeatureExtractorInceptionV3(
                "inception-v3-compat", [FEATURES], feature_extractor_weights_path=str(file)
            )
        except _BROKEN as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{file}: no weights of torch-fidelity's Inception: {reason}"
            ) from error
        return _Features(inception).to(inputs.device)

    def identity(self, inputs: Inputs) -> str:
        return f"inception sha256:{file_digest(self._file())}"

    def _file(self) -> Path:
        """Return the file of the weights, downloaded to where torch-fidelity looks for it."""
        if self.weights is not None:
            return Path(self.weights).expanduser()
        url: str = _torch_fidelity().URL_INCEPTION_V3
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not file.exists():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(file), progress=False)
            except OSError as error:
                raise DataError(
                    f"{url}: cannot be downloaded: {error}; download it elsewhere, and name the "
                    'file: extractor = { use = "inception", weights = "..." }'
                ) from error
        return file


def _torch_fidelity() -> Any:
    """Return torch-fidelity's module of Inception."""
    try:
        return import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise PluginError(
            f'extractor "inception" needs torch-fidelity and torchvision: {error}; '
            f"install them: {installing('fid')}"
        ) from error
