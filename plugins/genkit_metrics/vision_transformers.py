"""Vision transformers of the library transformers, loaded from local files.

The library builds the network from the settings in ``config.json`` that are listed here, with the
tensors in ``model.safetensors``. No other file in the folder is read, and no code in it is run.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit.errors import Code, DataError, PluginError, Problem
from genkit.files import expand_user, read_json
from genkit.interfaces import Inputs, Stages
from genkit.parts.packages import install_command, missing_packages
from genkit.settings import FilePath, setting
from genkit.tensors import file_digest, load, require_unchanged
from genkit_metrics.image_network import ImageFeatures, ImageNetwork

EXTRA = "transformers"
CONFIG, WEIGHTS = "config.json", "model.safetensors"

ARCHITECTURE = (
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "mlp_ratio",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
    "projection_dim",
    "qkv_bias",
    "use_mask_token",
    "use_swiglu_ffn",
)
"""Keys of the configuration that are used: the keys that affect the features."""


@dataclass(frozen=True, kw_only=True)
class VisionTransformer(ImageNetwork):
    """Features of a vision transformer, whose configuration and weights are in a folder."""

    model_types: ClassVar[tuple[str, ...]]
    """Supported values of ``model_type`` in the configuration."""

    folder: FilePath = setting(doc=f"folder with {CONFIG} and {WEIGHTS}; ~ is your home folder")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from missing_packages((EXTRA,), EXTRA)
        try:
            file = self._file(WEIGHTS)
        except DataError as error:  # ~ of an unknown user
            yield Problem(("folder",), str(error), code=error.code)
            return
        try:
            self._config()
        except DataError as error:
            yield Problem(("folder",), str(error), code=error.code)
        if not file.is_file():
            hint = f"download it and {CONFIG} from the model's page"
            reason = f"must contain {WEIGHTS}, got {self.folder} without it"
            yield Problem(("folder",), reason, hint, Code.NOT_FOUND)

    def version(self) -> str:
        return f"{' '.join(self._digests)} {_library()}"

    @cached_property
    def _digests(self) -> tuple[str, str]:
        """SHA-256 of weights and configuration, computed once since files may be gigabytes."""
        return file_digest(self._file(WEIGHTS)), file_digest(self._file(CONFIG))

    def bind(self, inputs: Inputs) -> nn.Module:
        weights, _ = load(self._file(WEIGHTS))
        try:
            network = self.network(self._config(), weights)
        except ImportError as error:
            raise PluginError(
                f"extractor requires the library transformers: {error}; {install_command(EXTRA)}",
                Code.MISSING_PACKAGE,
            ) from error
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{self.folder}: {CONFIG} or {WEIGHTS} is invalid: {reason}", Code.UNREADABLE
            ) from error
        for name, digest in zip((WEIGHTS, CONFIG), self._digests, strict=True):
            require_unchanged(self._file(name), digest)
        return ImageFeatures(network, self).to(inputs.device)

    def identity(self, inputs: Inputs) -> str:
        weights, config = self._digests
        return f"{self.label} sha256:{weights} config:{config[:16]} {_library()} {self.precision}"

    @abstractmethod
    def network(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
        """Return a network from pixels ``[B, 3, H, W]`` from 0 to 255 to features ``[B, F]``.

        Args:
            config: content of the configuration.
            weights: dict from the names in the file to the tensors.
        """

    def _file(self, name: str) -> Path:
        return expand_user(self.folder) / name

    def _config(self) -> dict[str, Any]:
        """Return the configuration.

        Raises:
            DataError: the file is missing or invalid, or is for a different type of model.
        """
        path = self._file(CONFIG)
        try:
            config = read_json(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}", Code.IO_ERROR) from error
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError
            raise DataError(f"{path}: must be JSON: {error}", Code.UNREADABLE) from error
        model_type = config.get("model_type") if isinstance(config, dict) else None
        if model_type not in self.model_types:
            supported = " or ".join(f'"{name}"' for name in self.model_types)
            raise DataError(
                f"{path}: model_type must be {supported}, got {json.dumps(model_type)}",
                Code.WRONG_KIND,
            )
        return dict(config)


def _library() -> str:
    """Return name and version of the library, whose code affects the features."""
    try:
        return f"{EXTRA} {version(EXTRA)}"
    except PackageNotFoundError:  # reported by `check` and `bind`
        return f"without {EXTRA}"


class Preprocessed(nn.Module):
    """Module that resizes and normalizes pixels, and passes them to a network.

    Resizing is bicubic with antialiasing in float32; the result is neither clipped nor rounded.

    Args:
        network: network that returns features ``[B, F]`` of images ``[B, 3, size, size]``.
        size: height and width of the network's input.
        mean: mean of each channel of images in [0, 1].
        std: standard deviation of each channel of images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.network = network
        self.size = (size, size)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def images(self, pixels: Tensor) -> Tensor:
        """Return the network's input for pixels ``[B, 3, H, W]`` from 0 to 255."""
        resized = F.interpolate(pixels / 255, self.size, mode="bicubic", antialias=True)
        return (resized - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features ``[B, F]``."""
        features: Tensor = self.network(self.images(pixels))
        return features


def load_model(
    model: Any, settings: Any, config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> Any:
    """Build a model of the library with weights in float32.

    Args:
        model: class of the model.
        settings: class of its configuration.
        config: content of the configuration.
        weights: dict from the names in the file to the tensors.

    Raises:
        ValueError: a setting is invalid, or a weight is missing, unused or of the wrong shape.
    """
    invalid = import_module("huggingface_hub.errors").StrictDataclassError
    try:
        chosen = settings(**{name: config[name] for name in ARCHITECTURE if name in config})
    except invalid as error:
        raise ValueError(" ".join(str(error).split())) from error
    with _quiet():
        network, report = model.from_pretrained(
            None,
            config=chosen,
            state_dict=dict(weights),
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if report[what]:
            names = sorted(map(str, report[what]))
            raise ValueError(f"{what.replace('_', ' ')}: {', '.join(names[:3])}")
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Disable the progress bars and load reports that the library prints inside the block."""
    logging = import_module(f"{EXTRA}.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
