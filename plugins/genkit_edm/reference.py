"""Networks of EDM's reference implementation as ours: settings, weights, denoisers.

The reference's names and defaults are those of the checkpoints that NVIDIA publishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from genkit.errors import DataError, SettingError
from genkit.interfaces import Preconditioner
from genkit.random import seeded
from genkit.settings import near_match
from genkit.types import DataSpec
from genkit_edm.adm import Adm
from genkit_edm.ddpmpp import Ddpmpp
from genkit_edm.iddpm import iddpm_levels
from genkit_edm.ncsnpp import Ncsnpp
from genkit_edm.preconditioning import EdmPreconditioner
from genkit_edm.preconditioning_iddpm import IddpmPreconditioner
from genkit_edm.preconditioning_ve import VePreconditioner
from genkit_edm.preconditioning_vp import VpPreconditioner
from genkit_edm.reference_names import Layout, layout_of
from genkit_edm.unet import UNet
from genkit_edm.unet_settings import UNetDenoiser

Table = Mapping[str, Any]


@dataclass(frozen=True)
class _Precond:
    """A preconditioning of the reference.

    Attributes:
        settings: our component.
        model_type: of the network that it has where no other is named.
        names: our settings by the reference's arguments.
        without_effect: arguments that change nothing of what the denoiser returns.
    """

    settings: type[Preconditioner]
    model_type: str
    names: Mapping[str, str]
    without_effect: frozenset[str] = frozenset()


_PRECONDS: Mapping[str, _Precond] = MappingProxyType(
    {
        "EDMPrecond": _Precond(
            EdmPreconditioner,
            "DhariwalUNet",
            {"sigma_data": "sigma_data"},
            frozenset({"sigma_min", "sigma_max"}),  # a sampler's limits: the network knows all
        ),
        "VPPrecond": _Precond(
            VpPreconditioner,
            "SongUNet",
            {"beta_d": "beta_d", "beta_min": "beta_min", "M": "m", "epsilon_t": "eps_t"},
        ),
        "VEPrecond": _Precond(
            VePreconditioner,
            "SongUNet",
            {"sigma_min": "sigma_min", "sigma_max": "sigma_max"},
        ),
        "iDDPMPrecond": _Precond(
            IddpmPreconditioner, "DhariwalUNet", {"C_1": "c_1", "C_2": "c_2", "M": "m"}
        ),
    }
)

_NAMES: Table = MappingProxyType(
    {
        "model_channels": "channels",
        "channel_mult": "channel_mult",
        "channel_mult_emb": "channel_mult_emb",
        "num_blocks": "blocks",
        "attn_resolutions": "attention",
        "dropout": "dropout",
        "label_dropout": "label_dropout",
        "embedding_type": "embedding",
        "channel_mult_noise": "channel_mult_noise",
        "encoder_type": "encoder",
        "decoder_type": "decoder",
        "resample_filter": "resample_filter",
    }
)
"""Our settings by the reference's arguments, for all networks."""

_DEFAULTS: Mapping[str, Table] = MappingProxyType(
    {
        "SongUNet": {
            "model_channels": 128,
            "channel_mult": (1, 2, 2, 2),
            "channel_mult_emb": 4,
            "num_blocks": 4,
            "attn_resolutions": (16,),
            "dropout": 0.1,
            "label_dropout": 0.0,
            "embedding_type": "positional",
            "channel_mult_noise": 1,
            "encoder_type": "standard",
            "decoder_type": "standard",
            "resample_filter": (1, 1),
        },
        "DhariwalUNet": {
            "model_channels": 192,
            "channel_mult": (1, 2, 3, 4),
            "channel_mult_emb": 4,
            "num_blocks": 3,
            "attn_resolutions": (32, 16, 8),
            "dropout": 0.1,
            "label_dropout": 0.0,
        },
    }
)
"""What the reference takes where an argument is left out."""

_DATA = ("img_resolution", "img_channels", "label_dim", "augment_dim")


def network_from_reference(precond: str, arguments: Table) -> tuple[UNetDenoiser, DataSpec]:
    """Return the settings of a network of the reference, and the data it is for.

    Args:
        precond: class of the preconditioning: EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond.
        arguments: of its constructor; those left out are as the reference has them.

    Raises:
        DataError: a class or an argument that is not known, or a value out of range.
    """
    kind = _known(precond, _PRECONDS, "preconditioning")
    model_type = arguments.get("model_type", kind.model_type)
    defaults = _known(model_type, _DEFAULTS, "network")
    known = {*_DATA, *kind.names, *kind.without_effect, *defaults, "model_type", "use_fp16"}
    for name in arguments:
        if name not in known:
            raise DataError(
                f"{precond} with {model_type} has no argument {name}; "
                f"{near_match(name, known) or 'it has ' + ', '.join(sorted(known))}"
            )
    resolution, channels, classes, augment_labels = (
        _count(name, arguments, least) for name, least in zip(_DATA, (1, 1, 0, 0), strict=True)
    )
    chosen: dict[str, Any] = {
        _NAMES[name]: tuple(value) if isinstance(value, list) else value
        for name, value in {**defaults, **_part(arguments, defaults)}.items()
    }
    if not classes:
        chosen["label_dropout"] = 0.0  # there is nothing to drop
    network: type[UNetDenoiser] = Adm
    if model_type == "SongUNet":
        network = Ncsnpp if chosen["embedding"] == "fourier" else Ddpmpp
    try:
        settings = network(
            preconditioner=kind.settings(
                **{kind.names[name]: value for name, value in _part(arguments, kind.names).items()}
            ),
            class_conditional=classes > 0,
            **chosen,
        )
    except SettingError as error:
        raise DataError(f"the arguments of {precond} make no network: {error}") from error
    for problem in settings.check({}):
        raise DataError(
            f"the arguments of {precond} make no network: {problem.key[0]}: {problem.reason}"
        )
    return settings, DataSpec((channels, resolution, resolution), classes, False, 0, augment_labels)


def weights_from_reference(
    weights: Mapping[str, Tensor], precond: str, arguments: Table
) -> dict[str, Tensor]:
    """Return the weights under the names of the module that our settings build.

    Args:
        weights: all of them, buffers too, under the reference's names, such as
            ``model.enc.8x8_conv.weight``.
        precond: as for :func:`network_from_reference`.
        arguments: likewise.

    Returns:
        The float32 state of ``settings.build(spec)``.

    Raises:
        DataError: as for :func:`network_from_reference`; or a weight is missing, not expected, of
            another shape or type than the arguments make it, or not finite: the first is named.
    """
    settings, spec = network_from_reference(precond, arguments)
    layout = _layout(settings, spec, len(weights))
    result = {}
    for name, entry in layout.entries.items():
        value = _found(weights, name, entry.shape)
        result[f"network.{entry.ours}"] = entry.convert(value.float())
    for name, expected in layout.fixed.items():
        value = _found(weights, name, tuple(expected.shape))
        if not torch.allclose(value.float(), expected, rtol=1e-3, atol=1e-7):
            raise DataError(f"{name} is not what the arguments make it")
    for name in weights:
        if name not in layout.entries and name not in layout.fixed:
            raise DataError(f"{name} is not part of the network that the arguments make")
    return result


def denoiser_from_reference(
    weights: Mapping[str, Tensor], precond: str, arguments: Table
) -> nn.Module:
    """Return a network of the reference as ours, in eval mode.

    It is called as ``denoiser(x, sigma, labels, augment_labels=None)``.

    Args:
        weights: as for :func:`weights_from_reference`.
        precond: likewise.
        arguments: likewise.

    Raises:
        DataError: likewise.
    """
    ours = weights_from_reference(weights, precond, arguments)
    settings, spec = network_from_reference(precond, arguments)
    with seeded(0):
        denoiser = settings.build(spec)
    denoiser.load_state_dict(ours)
    return denoiser.eval()


def _known(name: Any, table: Mapping[str, Any], what: str) -> Any:
    if not isinstance(name, str) or name not in table:
        raise DataError(f"{name!r} is no {what} of the reference; it has {', '.join(table)}")
    return table[name]


def _part(arguments: Table, names: Table) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in names}


def _count(name: str, arguments: Table, least: int) -> int:
    value = arguments.get(name, least if least == 0 else None)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"{name} is {value!r}, and must be an integer of at least {least}")
    return value


def _layout(settings: UNetDenoiser, spec: DataSpec, tensors: int) -> Layout:
    """Return what the reference would have, from our network built without memory."""
    blocks = len(settings.channel_mult) * (2 * settings.blocks + 1)
    if blocks > tensors:
        raise DataError(f"{tensors} weights are too few for the {blocks} blocks of the network")
    with torch.device("meta"):
        network = cast(UNet, settings.build_network(spec))
    preconditioner = settings.preconditioner
    if isinstance(preconditioner, IddpmPreconditioner):
        levels = iddpm_levels(preconditioner.c_1, preconditioner.c_2, preconditioner.m)
        u = torch.cat([levels.flip(0), levels.new_zeros(1)]).float()
        layout = layout_of(network, spec.shape[1], learned_variance=True)
        return Layout(layout.entries, {**layout.fixed, "u": u})
    return layout_of(network, spec.shape[1], learned_variance=False)


def _found(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in weights:
        raise DataError(f"{name} is missing, which the network that the arguments make has")
    value = weights[name]
    if tuple(value.shape) != shape:
        raise DataError(
            f"{name} has shape {list(value.shape)} where the arguments make it {list(shape)}"
        )
    if not value.is_floating_point():
        raise DataError(f"{name} holds {value.dtype} where floating-point numbers are needed")
    if not bool(value.isfinite().all()):
        raise DataError(f"{name} holds a value that is not finite")
    return value
