"""Conversion of ADM classifiers from files of guided-diffusion: weight names and architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genkit.errors import Code, DataError

_BLOCK = {
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "affine",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
_SINGLE = {
    "time_embed.0": "embed_time.0",
    "time_embed.2": "embed_time.2",
    "label_emb": "embed_label",
    "input_blocks.0.0": "stem",
    "out.0": "norm",
    "out.2": "pool",
    "out.2.qkv_proj": "pool.qkv",
    "out.2.c_proj": "pool.out",
}
_TENSOR = {"positional_embedding": "positions"}
_MIDDLE = {"0": ("middle.0.block", _BLOCK), "1": ("middle.0.attention", _ATTENTION)}
_MIDDLE["2"] = ("middle.1.block", _BLOCK)


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a classifier, keyed by the names in genkit's encoder.

    Raises:
        DataError: a name does not belong to such a classifier.
    """
    return {_rename(name): weight for name, weight in weights.items()}


def _rename(name: str) -> str:
    layer, _, tensor = name.rpartition(".")
    tensor = _TENSOR.get(tensor, tensor)
    if layer in _SINGLE:
        return f"{_SINGLE[layer]}.{tensor}"
    unit = re.fullmatch(r"(input_blocks\.([1-9]\d*)|middle_block)\.([012])\.(.+)", layer)
    if unit is not None:
        number, part, rest = unit.group(2, 3, 4)
        if number is None:
            place, names = _MIDDLE[part]
        else:
            kind, names = ("block", _BLOCK) if part == "0" else ("attention", _ATTENTION)
            place = f"units.{int(number) - 1}.{kind}"
        if rest in names:
            return f"{place}.{names[rest]}.{tensor}"
    raise DataError(
        f"{name[:200]} must be a tensor of an ADM classifier with attention pooling, scale-shift "
        "normalization and residual downsampling; name a file of such a classifier",
        Code.WRONG_KIND,
    )


def infer_architecture(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of :class:`~genkit_dg.adm_encoder.AdmEncoder` that match the weights.

    A block with a convolution in its shortcut is taken as the first of its level. So the width must
    change from level to level, as in all published classifiers.

    Args:
        weights: weights, keyed by the names in genkit's encoder.

    Raises:
        DataError: the weights do not belong to such an encoder.
    """
    try:
        units = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("units."))
        firsts = [0, *(k for k in range(units) if f"units.{k}.block.skip.weight" in weights)]
        channels, image_channels, _, _ = weights["stem.weight"].shape
        _, positions = weights["pool.positions"].shape
        widths = [weights[f"units.{first}.block.conv1.weight"].shape[0] for first in firsts]
        outputs = weights["pool.out.weight"].shape[0]
        multipliers = tuple(width // channels for width in widths)
    except (ArithmeticError, LookupError, ValueError) as error:
        raise DataError(
            f"the weights must belong to an ADM classifier, but do not: {error}", Code.WRONG_KIND
        ) from error
    levels = len(firsts)
    size = round((positions - 1) ** 0.5) * 2 ** (levels - 1)
    return {
        "shape": (image_channels, size, size),
        "channels": channels,
        "multipliers": multipliers,
        "blocks": (units - levels + 1) // levels,
        "attention": tuple(
            size >> level
            for level, first in enumerate(firsts)
            if f"units.{first}.attention.qkv.weight" in weights
        ),
        "outputs": outputs,
    }
